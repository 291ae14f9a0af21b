#!/bin/sh
# Fetches the pinned libtorch from PyPI's wheels into .libtorch/: `deploy/fetch-libtorch.sh cpu` or `cuda`.
# Needs python3 with pip; nothing of the system's Python is touched. Quiet and immediate where it is already there.
# For another CUDA than 13.0: TORCH=2.13.0+cu126 (say) and TORCH_INDEX, the wheel index that this build is on; the NVIDIA
# libraries that it asks for come along.
set -eu
cd "$(dirname "$0")/.."

variant=${1:-cpu}
torch="torch==${TORCH:-2.13.0}"
# libtorch_cpu.so of the wheel itself needs these two.
cpu="nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85"
cuda="nvidia-cublas==13.1.1.3 nvidia-cuda-nvrtc==13.0.88 nvidia-cudnn-cu13==9.20.0.48 nvidia-cufft==12.0.0.61
      nvidia-cufile==1.15.1.6 nvidia-curand==10.4.0.35 nvidia-cusolver==12.0.4.66 nvidia-cusparse==12.6.3.3
      nvidia-cusparselt-cu13==0.8.1 nvidia-nccl-cu13==2.29.7 nvidia-nvjitlink==13.0.88 nvidia-nvshmem-cu13==3.4.5"
case $variant in
cpu) wheels="$torch $cpu" size="0.5 GB" ;;
cuda) wheels="$torch $cpu $cuda" size="4 GB" ;;
*) echo "usage: $0 cpu|cuda" >&2; exit 2 ;;
esac
pip="--no-deps"
if [ -n "${TORCH_INDEX:-}" ]; then
    wheels=$torch
    pip="--index-url $TORCH_INDEX"
fi

# `done` names what is installed, so that a newer pin or the other variant replaces it. CUDA serves CPU too.
stamp=.libtorch/done
if [ -f "$stamp" ]; then
    installed=$(cat "$stamp")
    [ "$installed" = "$torch cuda" ] && exit 0
    [ "$installed" = "$torch $variant" ] && exit 0
fi
if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "fetch-libtorch: python3 with pip is needed (Debian: apt install python3-pip), or set LIBTORCH to an existing libtorch 2.13" >&2
    exit 1
fi

echo "fetching libtorch ($torch, $variant, about $size) into .libtorch" >&2
rm -rf .libtorch.part
# --target passes the guard of an externally managed Python.
# shellcheck disable=SC2086
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile \
    --no-cache-dir --only-binary=:all: --target .libtorch.part $pip $wheels

# Only lib/ and include/ are used, and the wheels' licences; on a CPU-only set-up the CUDA half goes too.
find .libtorch.part/torch -mindepth 1 -maxdepth 1 ! -name lib ! -name include -exec rm -rf {} +
rm -f .libtorch.part/torch/lib/libtorch_python.so
if [ "$variant" = cpu ]; then
    for lib in torch_cuda torch_cuda_linalg torch_nvshmem c10_cuda caffe2_nvrtc; do
        rm -f ".libtorch.part/torch/lib/lib$lib.so"
    done
fi
find .libtorch.part -mindepth 1 -maxdepth 1 ! -name torch ! -name nvidia \
    ! -name 'torch-*.dist-info' ! -name 'nvidia_*.dist-info' -exec rm -rf {} +
echo "$torch $variant" >.libtorch.part/done
rm -rf .libtorch
mv .libtorch.part .libtorch
