# An image for workers, jobs and the command line.
#   docker build -t tgeokd .
#   docker build -t tgeokd --build-arg TORCH_INDEX=URL .
# Without TORCH_INDEX torch comes from pip's own index. Pass the wheel index of the build you want, as pytorch.org
# lists it (the CPU one makes a much smaller image; a CUDA one serves GPU nodes).
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ARG TORCH_INDEX=""
ARG PIP_ARGS=""
ARG EXTRAS="report,tune,object-store"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src

# Three layers, the slowest first: torch, the other dependencies (an empty package pulls them in), the source.
COPY constraints.txt ./
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"; \
    fi
COPY pyproject.toml README.md LICENSE ./
RUN mkdir tgeokd_ray && touch tgeokd_ray/__init__.py \
    && pip install ${PIP_ARGS} -c constraints.txt ".[${EXTRAS}]" \
    && pip uninstall --yes tgeokd_ray && rm -rf tgeokd_ray build
COPY tgeokd_ray tgeokd_ray
RUN pip install ${PIP_ARGS} --no-deps .

FROM python:${PYTHON_VERSION}-slim
# The health checks that KubeRay adds to a pod may call wget.
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 tgeokd && install -d -o tgeokd /data /app
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
WORKDIR /app
COPY --chown=tgeokd jobs jobs
COPY --chown=tgeokd datasets datasets
USER tgeokd
VOLUME /data
CMD ["tgeokd", "--help"]
