"""Fine-tuning on labelled images: `config`, `labelled` (images), `patches`, `finetune`."""
