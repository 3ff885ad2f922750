# The image of every Kubeflow step. Targets: cpu (the default) and gpu. docs/image.md says how to build it.
ARG BASE=python:3.11-slim-trixie

FROM ${BASE} AS packages-cpu
WORKDIR /src
ENV PYTHONDONTWRITEBYTECODE=1
COPY pyproject.toml uv.lock ./
COPY setup/__init__.py setup/venv.py setup/image.py setup/tools.txt setup/
# The index is the builder's own: its pip.conf and its certificates, which no layer keeps.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    python3.11 -m setup.image /opt/mnist/env /opt/mnist/app

FROM ${BASE} AS packages-gpu
WORKDIR /src
ENV PYTHONDONTWRITEBYTECODE=1
COPY pyproject.toml uv.lock ./
COPY setup/__init__.py setup/venv.py setup/image.py setup/tools.txt setup/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    python3.11 -m setup.image /opt/mnist/env /opt/mnist/app --extra gpu

FROM ${BASE} AS app
COPY pipeline /opt/mnist/app/pipeline
COPY components /opt/mnist/app/components
COPY trainer /opt/mnist/app/trainer
COPY serving /opt/mnist/app/serving
COPY kubeflow /opt/mnist/app/kubeflow
RUN python3.11 -m compileall -q --invalidation-mode unchecked-hash /opt/mnist/app

FROM ${BASE} AS common
# Kubernetes can tell that a number is not root's; it cannot tell with a name.
RUN echo 'mnist:x:10001:10001:mnist:/home/mnist:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'mnist:x:10001:' >>/etc/group \
    && install -d -o 10001 -g 10001 /home/mnist
ENV PATH=/opt/mnist/env/bin:$PATH \
    HOME=/home/mnist \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=1
WORKDIR /home/mnist
CMD ["mnist", "--help"]

FROM common AS gpu
# CUDA comes with the packages; the driver from the machine: its libraries and nvidia-smi.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-gpu /opt/mnist/env /opt/mnist/env
COPY --from=app /opt/mnist/app /opt/mnist/app
USER 10001:10001
# Of the sources and of uv.lock; setup/build_image.sh computes them.
ARG CODE_SHA256=unknown
ARG LOCK_SHA256=unknown
LABEL org.opencontainers.image.title="mnist-tfx" mnist.code.sha256="${CODE_SHA256}" mnist.lock.sha256="${LOCK_SHA256}"

FROM common AS cpu
COPY --from=packages-cpu /opt/mnist/env /opt/mnist/env
COPY --from=app /opt/mnist/app /opt/mnist/app
USER 10001:10001
ARG CODE_SHA256=unknown
ARG LOCK_SHA256=unknown
LABEL org.opencontainers.image.title="mnist-tfx" mnist.code.sha256="${CODE_SHA256}" mnist.lock.sha256="${LOCK_SHA256}"
