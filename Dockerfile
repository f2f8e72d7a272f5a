# Forage: one image for all seven services; its command is `forage`'s, such as `serve lexical`.
# The base is pinned by name only: give PYTHON_IMAGE a digest where you can resolve one.
ARG PYTHON_IMAGE=python:3.11-slim

# A private package index comes in as a secret: docker build --secret id=pip,src=pip.conf .
FROM ${PYTHON_IMAGE} AS packages
COPY requirements.runtime.lock ./
# Wheels only, but for nkeys, pure Python of which the index has no wheel.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/forage \
 && python -m pip --python /opt/forage/bin/python install --no-cache-dir --require-hashes \
      --no-deps --only-binary :all: --no-binary nkeys -r requirements.runtime.lock \
 && find /opt/forage -depth -type d -name tests -exec rm -r {} +

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /build
COPY requirements.build.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip install --no-cache-dir --require-hashes --no-deps -r requirements.build.lock
COPY pyproject.toml README.md ./
COPY forage forage
COPY generators generators
COPY orchestrator orchestrator
COPY ranker ranker
COPY evaluation evaluation
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .

FROM ${PYTHON_IMAGE}
# All that is written is in data/ and /tmp, so the root file system can be read-only.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /srv/forage forage \
 && install -d -o forage -g forage /srv/forage /srv/forage/data
COPY --from=packages /opt/forage /opt/forage
RUN --mount=from=wheel,source=/build/dist,target=/mnt \
    python -m pip --python /opt/forage/bin/python install --no-cache-dir --no-deps --no-index \
      /mnt/*.whl
COPY config /srv/forage/config
COPY deploy/check_health.py /srv/forage/check_health.py
# One BLAS and OpenMP thread per process: the services of a host share its cores. Milvus Lite and
# ONNX Runtime want a home to write caches to; the latter would also report its use to Microsoft.
ENV PATH=/opt/forage/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /srv/forage
VOLUME /srv/forage/data
USER 10001:10001
ENTRYPOINT ["forage"]
CMD ["--help"]
