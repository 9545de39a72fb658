# The service alone; compose.yaml runs it with a Redis of its own.

# This pins the version. To pin the very bytes, append the @sha256:… that
# `docker buildx imagetools inspect python:3.13.16-slim-trixie` prints, and let a bot raise it: it gets no fixes by
# itself.
FROM python:3.13.16-slim-trixie AS base


FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Only what the locks know by its hash is installed, and nothing is compiled. The source comes later: it changes more
# often.
COPY requirements.lock requirements-build.lock ./
RUN pip install --require-hashes --requirement requirements-build.lock \
    && python -m venv --without-pip /opt/streamlimit \
    && pip --python /opt/streamlimit install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY streamlimit streamlimit
# With --no-index this fails where the lock lacks anything that pyproject.toml asks for.
RUN hatchling build --target wheel \
    && pip --python /opt/streamlimit install --no-index dist/*.whl


FROM base
LABEL org.opencontainers.image.title="streamlimit" \
      org.opencontainers.image.description="Lets one account watch at most N streams at once" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/streamlimit /opt/streamlimit
# Inside a container 127.0.0.1 is out of reach for everybody else. On 0.0.0.0 the service refuses to start until it is
# given a SECRET and keys (SERVICE_KEYS, OPERATOR_KEYS, JWT_KEY or JWT_JWKS_URL), as variables or as files (…_FILE).
ENV PATH=/opt/streamlimit/bin:$PATH \
    STREAMLIMIT_HOST=0.0.0.0 \
    STREAMLIMIT_DATA_DIR=/var/lib/streamlimit
# The import proves that the environment works here, and leaves the bytecode of the standard library, which the base
# image lacks and the user below could not write: each health check would compile it again.
RUN pip uninstall --yes --root-user-action=ignore pip \
    && install --directory --mode=0700 --owner=10001 --group=10001 /var/lib/streamlimit \
    && python -c "import http.client, streamlimit.server"
USER 10001:10001
# The secret and the embedded store's files; nothing is written where both SECRET and REDIS_URL are set.
VOLUME /var/lib/streamlimit
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client, os, sys; service = http.client.HTTPConnection('localhost', os.environ.get('STREAMLIMIT_PORT') or 8080, timeout=3); service.request('GET', '/livez'); sys.exit(service.getresponse().status != 200)"]
ENTRYPOINT ["streamlimit", "serve"]
