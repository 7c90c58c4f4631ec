# One image for flows, Dask scheduler and workers: docker build -t unbraid .
FROM python:3.11-slim
WORKDIR /app
COPY requirements.lock pyproject.toml README.md ./
# The lock names torch by version alone; this index has it without CUDA. For GPUs leave the index out.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.lock "psycopg[binary]" asyncpg
COPY flows flows
COPY tasks tasks
COPY model model
COPY storage storage
COPY unbraid unbraid
COPY prefect.yaml LICENSE ./
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .
ENV DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0
ENTRYPOINT []
CMD ["unbraid", "--help"]
