# Two images from one file: `--target cpu` (default last stage is gpu).
#   docker build --target cpu -t anystar-batch:cpu .
#   docker run --rm -v /data:/data anystar-batch:cpu segment /data/embryo.ome.zarr --output /data/out

FROM python:3.11-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY anystar_batch anystar_batch
COPY models models
RUN python -m pip install --no-cache-dir build==1.3.0 && python -m build --wheel --outdir /wheel

FROM python:3.11-slim AS base
LABEL org.opencontainers.image.title="anystar-batch" \
      org.opencontainers.image.description="Segment every star-convex object in huge OME-Zarr volumes" \
      org.opencontainers.image.licenses="BSD-3-Clause"
ENV PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=3 \
    NUMBA_CACHE_DIR=/tmp/numba \
    MPLCONFIGDIR=/tmp/matplotlib
# StarDist's compiled part is linked against OpenMP.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 anystar
COPY constraints.txt /constraints.txt
ENTRYPOINT ["anystar-batch"]
CMD ["--help"]

FROM base AS cpu
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python -m pip install --no-cache-dir -c /constraints.txt "$(ls /wheel/*.whl)[cpu,s3]"
USER anystar

FROM base AS gpu
# No constraints here: they pin the CPU build's companions, and CUDA comes as wheels.
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python -m pip install --no-cache-dir "$(ls /wheel/*.whl)[gpu,s3]" \
    && python -c "import glob, sysconfig; print('\n'.join(glob.glob(sysconfig.get_paths()['purelib'] + '/nvidia/*/lib')))" \
       > /etc/ld.so.conf.d/nvidia-pip.conf \
    && ldconfig
USER anystar
