# The two images of Carillon, the same for Compose and Kubernetes:
#   docker build -t carillon-gateway .                 the gateway (the last stage, so the default)
#   docker build -t carillon-edge --target edge .      Nginx with the configuration of nginx/
# No `# syntax=` line: a build asks no registry but for the two base images, which may be digests.
# BASE_IMAGE is any Debian with Python 3.11 to 3.14 as `python` (the send loop is compiled against glibc).
ARG BASE_IMAGE=python:3.13-slim
ARG NGINX_IMAGE=nginx:1.30


# What needs a compiler and pip. At its end /image holds all that the gateway adds to its base image.
FROM ${BASE_IMAGE} AS build
# Versions are those of the base image's Debian: pinned, they would vanish from its archive with the next fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev tini \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /srv/carillon
COPY requirements/image.txt /build/
RUN python -m venv --without-pip venv \
    && python -m pip --python venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
        --root-user-action ignore --require-hashes --only-binary :all: -r /build/image.txt
ENV PATH=/srv/carillon/venv/bin:$PATH \
    PYTHONPYCACHEPREFIX=/srv/carillon/pycache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONHASHSEED=0
COPY LICENSE ./
COPY app app
COPY images/compile.py /build/
# A time for all files, in seconds since 1970: that of the last commit makes the image of one commit reproducible.
ARG SOURCE_DATE_EPOCH=0
RUN python -m app build \
    && python /build/compile.py \
    && mkdir -p /image/srv /image/usr/local/bin \
    && cp -a /srv/carillon /image/srv/ \
    && cp /usr/bin/tini-static /image/usr/local/bin/tini \
    && chmod -R a+rX,go-w /image \
    && find /image -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +


FROM ${NGINX_IMAGE} AS edge
COPY --chmod=755 nginx /srv/carillon/nginx
USER 101:101
EXPOSE 8080 8443 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["sh", "-c", "at=http://127.0.0.1:${CARILLON_EDGE_STATUS_PORT:-8081}/healthz; curl -fsS $at || wget -qO- $at"]
ENTRYPOINT ["/srv/carillon/nginx/entrypoint.sh"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Carillon edge" \
    org.opencontainers.image.description="Nginx in front of the gateways of Carillon" \
    org.opencontainers.image.licenses="Apache-2.0 AND BSD-2-Clause" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"


FROM ${BASE_IMAGE} AS gateway
ARG SOURCE_DATE_EPOCH=0
# Nothing is installed into a gateway: without pip there is less to patch, and less to misuse.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/*-packages/pip* /usr/local/lib/python3*/ensurepip \
    && touch --date "@${SOURCE_DATE_EPOCH}" /usr/local/bin /usr/local/lib/python3* /usr/local/lib/python3*/*-packages
COPY --from=build /image /
WORKDIR /srv/carillon
ENV PATH=/srv/carillon/venv/bin:$PATH \
    PYTHONPYCACHEPREFIX=/srv/carillon/pycache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root; it needs no entry in /etc/passwd.
USER 10001:10001
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
# Alive, not ready: a gateway whose Redis is away must not be restarted.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-m", "app.server.alive"]
# tini: PID 1 has no default actions for signals, so a SIGTERM that comes before Gunicorn has its handlers would be lost.
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "app", "serve"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Carillon gateway" \
    org.opencontainers.image.description="WebSocket gateway: one publish, every socket, on any pod" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
