# Every program in one image; the images of the roles add what to start. From the top of the source tree:
#   docker build -f deploy/docker/base.Dockerfile -t polystill-base .
# With CUDA and NCCL, some GB more: --build-arg CUDA=1
# Both stages use one path: the programs look for LibTorch and Arrow in /opt/polystill/.venv.
FROM debian:12-slim AS build
ARG CUDA
WORKDIR /opt/polystill
COPY . .
RUN ./polystill setup ${CUDA:+--cuda}
RUN ./polystill build polystill polystill-coordinator polystill-teacher polystill-student polystill-predict polystill-label polystill-torchscript
RUN cmake --install build/release --prefix /installed

FROM debian:12-slim
ARG CUDA
WORKDIR /opt/polystill
COPY polystill requirements.txt ./
RUN ./polystill setup --runtime ${CUDA:+--cuda} && rm -rf .cache /var/lib/apt/lists
COPY recipes/package_topics/sample recipes/package_topics/sample
COPY LICENSE THIRD_PARTY.md ./
COPY --from=build /installed ./
USER 65532:65532
