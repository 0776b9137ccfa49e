#!/bin/sh
# Builds run_artifact:  build.sh OUTPUT
#
# CXX is the compiler (g++). SITE is the folder with the packages tvm and tvm_ffi, whose headers and
# libraries are used: that of PYTHON (python3), or for another machine an unpacked wheel of its kind.
set -eu
here=$(dirname "$0")
find_site='import importlib.util as u; print(u.find_spec("tvm_ffi").submodule_search_locations[0])'
site=${SITE:-$(dirname "$("${PYTHON:-python3}" -c "$find_site")")}
ffi=$site/tvm_ffi/lib
tvm=$site/tvm/lib
exec "${CXX:-g++}" -std=c++17 -O2 "$here/run_artifact.cc" -o "$1" \
    -I"$site/tvm_ffi/include" \
    -Wl,--no-as-needed -L"$ffi" -L"$tvm" -ltvm_ffi -ltvm_runtime -Wl,-rpath,"$ffi:$tvm"
