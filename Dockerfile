# Two images from one file: `--target cpu`, or the last stage, for NVIDIA GPUs. docs/containers.md
# says how to build and run them, read-only and as any user, and what of that was tried.

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
RUN python -m pip install --no-cache-dir build==1.6.1
COPY pyproject.toml README.md LICENSE ./
COPY anystar_batch anystar_batch
COPY models models
COPY docs/man docs/man
RUN python -m build --wheel --outdir /wheel

FROM python:3.11-slim-bookworm AS base
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="anystar-batch" \
      org.opencontainers.image.description="Segment every star-convex object in huge OME-Zarr volumes" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="python:3.11-slim-bookworm"
# Whatever is cached goes below /tmp: the root may be read-only, and the user any number.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TF_CPP_MIN_LOG_LEVEL=3 \
    HOME=/tmp \
    KERAS_HOME=/tmp/keras \
    NUMBA_CACHE_DIR=/tmp/numba \
    CUDA_CACHE_PATH=/tmp/cuda \
    XDG_CACHE_HOME=/tmp/cache
WORKDIR /data
ENTRYPOINT ["anystar-batch"]
CMD ["--help"]
# Process 1 gets no SIGTERM unless it asks for it; SIGINT ends a run cleanly, its lock released.
STOPSIGNAL SIGINT

# The run stages get the wheel and its dependencies, no compiler, no package manager's leftovers.
FROM base AS cpu
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    python -m pip install --no-cache-dir -c /constraints.txt "$(ls /wheel/*.whl)[cpu,cloud]"
USER 1000:1000

FROM base AS gpu
# TensorFlow finds most of CUDA's wheels by itself; the loader is told of the others.
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    python -m pip install --no-cache-dir -c /constraints.txt "$(ls /wheel/*.whl)[gpu,cloud]" \
    && python -c "import glob, sysconfig; print('\n'.join(glob.glob(sysconfig.get_paths()['purelib'] + '/nvidia/*/lib')))" \
       > /etc/ld.so.conf.d/nvidia-pip.conf \
    && ldconfig
USER 1000:1000
