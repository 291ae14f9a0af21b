#!/bin/sh
# Copies from a folder made by fetch-libtorch.sh ($1) what a running server can need to $2 (a full path), with the licences of all of it.
set -eu
from=$1 to=$2

mkdir -p "$to/torch/lib" "$to/nvidia" "$to/licences"
cp "$from"/torch/lib/*.so* "$to/torch/lib/"
# Shared memory between Python's processes, and what only a linker asks for.
rm -f "$to"/torch/lib/libshm.so "$to"/torch/lib/libtorch.so "$to"/torch/lib/libtorch_global_deps.so

# NVIDIA's wheels also hold headers, static libraries, and libraries that neither libtorch nor its libraries ask for.
[ -d "$from/nvidia" ] && cp -r "$from/nvidia/." "$to/nvidia/"
find "$to/nvidia" -type f ! -name '*.so*' -delete
for unused in libcufftw libcusolverMg libnvblas libcufile_rdma libcheckpoint libnvperf_host libnvperf_target libpcsamplingutil; do
    find "$to/nvidia" -name "$unused.so*" -delete
done
find "$to/nvidia" -name '*.alt.so*' -delete
# How nvshmem talks between machines, which this server never does.
find "$to/nvidia" -name 'nvshmem_*.so*' -delete
find "$to" -type d -empty -delete
mkdir -p "$to/nvidia"

for info in "$from"/*.dist-info; do
    [ -d "$info" ] || continue
    name=$to/licences/$(basename "$info" .dist-info)
    mkdir -p "$name"
    (cd "$info" && find . -type f \( -iname '*licen[cs]e*' -o -iname 'NOTICE*' \) -exec cp --parents {} "$name" \;)
done
