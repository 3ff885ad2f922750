# The image of every Kubeflow step: targets cpu (the default) and gpu; and that of the server: serving. docs/image.md says how to build it.
# Debian 13, whose own Python runs everything.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS python
RUN apt-get update --quiet \
    && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*
# Kubernetes can tell that a number is not root's; it cannot tell with a name.
RUN echo 'app:x:10001:10001:app:/home/app:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'app:x:10001:' >>/etc/group \
    && install -d -o 10001 -g 10001 /home/app

FROM python AS packages
RUN apt-get update --quiet \
    && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends python3-venv
WORKDIR /src
ENV PYTHONDONTWRITEBYTECODE=1
COPY pyproject.toml uv.lock ./
COPY setup/__init__.py setup/venv.py setup/image.py setup/tools.txt setup/

# The index is the builder's own: its pip.conf and its certificates, which no layer keeps.
FROM packages AS packages-cpu
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    python3 -m setup.image /opt/env /opt/app

FROM packages AS packages-gpu
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    python3 -m setup.image /opt/env /opt/app --extra gpu

FROM python AS app
COPY _tfx_image_pipeline.py /opt/app/_tfx_image_pipeline.py
COPY pipeline /opt/app/pipeline
COPY components /opt/app/components
COPY trainer /opt/app/trainer
COPY serving /opt/app/serving
COPY kubeflow /opt/app/kubeflow
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/app

FROM python AS common
ENV PATH=/opt/env/bin:$PATH \
    HOME=/home/app \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=1
WORKDIR /home/app

FROM common AS gpu
# CUDA comes with the packages; the driver from the machine: its libraries and nvidia-smi.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-gpu /opt/env /opt/env
COPY --from=app /opt/app /opt/app
USER 10001:10001
# Of pyproject.toml, of the sources and of uv.lock; setup/build_image.sh computes them.
ARG NAME=unknown
ARG VERSION=unknown
ARG CODE_SHA256=unknown
ARG LOCK_SHA256=unknown
LABEL org.opencontainers.image.title="${NAME}" org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0" code.sha256="${CODE_SHA256}" lock.sha256="${LOCK_SHA256}"

FROM common AS on-cpu
COPY --from=packages-cpu /opt/env /opt/env
COPY --from=app /opt/app /opt/app
USER 10001:10001
ARG NAME=unknown
ARG VERSION=unknown
ARG CODE_SHA256=unknown
ARG LOCK_SHA256=unknown
LABEL org.opencontainers.image.title="${NAME}" org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0" code.sha256="${CODE_SHA256}" lock.sha256="${LOCK_SHA256}"

# Taken for tensorflow/serving: its paths, variables, ports and entrypoint.
FROM on-cpu AS serving
COPY --from=packages-cpu /opt/env/bin/tensorflow_model_server /usr/bin/tensorflow_model_server
COPY serving/tf_serving_entrypoint.sh /usr/bin/tf_serving_entrypoint.sh
ENV MODEL_NAME=model MODEL_BASE_PATH=/models
EXPOSE 8500 8501
ENTRYPOINT ["/usr/bin/tf_serving_entrypoint.sh"]

FROM on-cpu AS cpu
