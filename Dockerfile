# One image for every service: what a container does is its command.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /build
RUN python -m venv /opt/llmyard
COPY requirements/run.txt requirements/run.txt
RUN /opt/llmyard/bin/pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY alembic alembic
COPY shared shared
COPY llm_pool llm_pool
COPY orchestrator orchestrator
# What only the installation needed is left behind.
RUN /opt/llmyard/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && /opt/llmyard/bin/pip uninstall --yes hatchling editables trove-classifiers pathspec pluggy pip

FROM ${PYTHON}
RUN useradd --system --uid 10001 --home-dir /var/lib/llmyard --create-home llmyard
COPY --from=build /opt/llmyard /opt/llmyard
ENV PATH=/opt/llmyard/bin:$PATH PYTHONUNBUFFERED=1 LLMYARD_DATA_DIR=/var/lib/llmyard
WORKDIR /var/lib/llmyard
USER llmyard
ENTRYPOINT ["llmyard"]
CMD ["--help"]
