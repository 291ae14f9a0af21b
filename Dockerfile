# sardine in a container: `docker build -t sardine .` for CPUs, with `--build-arg VARIANT=cuda` for NVIDIA GPUs (and CPUs).
# Both variants hold the same binary; they differ in the libraries beside it. deploy/README.md says more.
ARG VARIANT=cpu

FROM debian:bookworm-slim AS fetch
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip && rm -rf /var/lib/apt/lists/*
WORKDIR /fetch
COPY deploy/fetch-libtorch.sh deploy/

# What the binary is built against, whatever it will run with: CUDA is loaded when it starts.
FROM fetch AS libtorch-cpu
RUN deploy/fetch-libtorch.sh cpu

# Hosts with another driver need another build of the same PyTorch: a version such as 2.13.0+cu126 and the wheel index it is on.
FROM fetch AS libtorch-cuda
ARG TORCH=
ARG TORCH_INDEX=
RUN deploy/fetch-libtorch.sh cuda

# What is used at run time: no headers, no libraries that only a linker or nobody asks for.
FROM libtorch-${VARIANT} AS libtorch
COPY deploy/container/prune-libtorch.sh deploy/container/
RUN deploy/container/prune-libtorch.sh .libtorch /lib-used

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY --from=libtorch-cpu /fetch/.libtorch /libtorch
ENV LIBTORCH=/libtorch/torch
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY src src
COPY fry fry
# Function names stay for backtraces; line tables, which are most of the file, do not.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked \
 && cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu >/metadata.json \
 && strip --strip-debug -o /sardine target/release/sardine

FROM libtorch AS sbom
COPY --from=build /metadata.json ./
COPY deploy/container/sbom.py ./
RUN python3 sbom.py metadata.json .libtorch >/sbom.cdx.json

FROM debian:bookworm-slim AS runtime-cpu
# `--build-arg EXTRA_PACKAGES=ffmpeg` for files of videos; it is larger than all the rest of the CPU's image.
ARG EXTRA_PACKAGES=
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libstdc++6 ${EXTRA_PACKAGES} \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin sardine \
 && install -d -o sardine -g sardine /data
COPY --from=libtorch /lib-used /opt/sardine/lib
COPY --from=sbom /sbom.cdx.json /opt/sardine/sbom.cdx.json
COPY --from=build /sardine /opt/sardine/bin/sardine
COPY deploy/container/healthcheck.sh /opt/sardine/bin/healthcheck
# A checkpoint is mounted at /repository; one named by its hub id is kept in /data.
ENV PATH=/opt/sardine/bin:$PATH SARDINE_HOST=0.0.0.0 PORT=80 HF_HOME=/data
VOLUME /data

# NVIDIA's container runtime reads these.
FROM runtime-cpu AS runtime-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime-${VARIANT}
ARG VARIANT
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sardine" \
      org.opencontainers.image.description="Serves a Qwen3.5 vision-language checkpoint over the contracts of the Hugging Face Inference Toolkit, OpenAI and TGI" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}-${VARIANT}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="debian:bookworm-slim"
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 80
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=10m --retries=3 CMD ["healthcheck"]
ENTRYPOINT ["sardine", "serve"]
