# docker build --tag experiments . && docker run experiments
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home researcher \
    && install --directory --owner=researcher /app
USER researcher
WORKDIR /app

# Docker builds this layer again only if a locked version changes.
COPY --chown=researcher Makefile requirements.lock requirements-build.lock ./
RUN make .venv/.locked

# The lock files are copied again and may be newer than .venv/.locked, which would make it outdated.
COPY --chown=researcher . .
RUN touch .venv/.locked && make install
CMD ["make", "train"]
