// Runs an artifact without Python:  run_artifact DIR FOLDER [CALLS]
//
// Reads each input of the model from FOLDER/NAME.bin (its numbers one after the other, as
// numpy.ndarray.tofile writes them), makes CALLS inferences (1), and writes each output to
// FOLDER/NAME.bin. Needs the TVM runtime and no compiler; docs/artifacts.md says how to build it.

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/dtype.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

// The compiled code reads whole vectors from where a tensor begins.
struct Aligned {
  void AllocData(DLTensor* tensor) {
    std::size_t size = ffi::GetDataSize(*tensor);
    tensor->data = std::aligned_alloc(64, (size + 127) / 64 * 64);
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

ffi::Tensor ReadTensor(const ffi::json::Object& entry, const std::string& folder) {
  std::vector<int64_t> shape;
  for (const ffi::Any& extent : entry["shape"].cast<ffi::json::Array>()) {
    shape.push_back(extent.cast<int64_t>());
  }
  DLDataType dtype = ffi::StringToDLDataType(entry["dtype"].cast<ffi::String>());
  ffi::Tensor tensor =
      ffi::Tensor::FromNDAlloc(Aligned(), ffi::Shape(shape), dtype, DLDevice{kDLCPU, 0});
  std::string path = folder + "/" + std::string(entry["name"].cast<ffi::String>()) + ".bin";
  std::string bytes = Read(path);
  if (bytes.size() != ffi::GetDataSize(tensor)) {
    throw std::runtime_error(path + " is not as large as the input of the model");
  }
  std::copy(bytes.begin(), bytes.end(), static_cast<char*>(tensor.data_ptr()));
  return tensor;
}

void WriteTensor(const ffi::json::Object& entry, const std::string& folder, ffi::Tensor tensor) {
  std::string path = folder + "/" + std::string(entry["name"].cast<ffi::String>()) + ".bin";
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(tensor.data_ptr()), ffi::GetDataSize(tensor));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void Run(const std::string& artifact, const std::string& folder, int calls) {
  auto manifest = ffi::json::Parse(Read(artifact + "/manifest.json")).cast<ffi::json::Object>();
  auto target = manifest["target"].cast<ffi::json::Object>();
  int threads = static_cast<int>(target["threads"].cast<int64_t>());
  // TVM asks for this variable at each parallel loop: it has to stay.
  setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);
  ffi::Function::GetGlobalRequired("runtime.config_threadpool")(1, threads);

  ffi::Module library = ffi::Module::LoadFromFile(artifact + "/lib.so");
  auto machine = library->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  constexpr int kPooled = 2;
  machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooled);
  ffi::Function main = machine->GetFunction("main").value();

  std::vector<ffi::Tensor> inputs;
  for (const ffi::Any& entry : manifest["inputs"].cast<ffi::json::Array>()) {
    inputs.push_back(ReadTensor(entry.cast<ffi::json::Object>(), folder));
  }
  std::vector<ffi::AnyView> arguments(inputs.begin(), inputs.end());
  ffi::Any result;
  double best = 1e30;
  for (int call = 0; call < calls; ++call) {
    auto begun = std::chrono::steady_clock::now();
    main.CallPacked(arguments.data(), static_cast<int>(arguments.size()), &result);
    std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - begun;
    best = std::min(best, taken.count());
  }
  auto outputs = manifest["outputs"].cast<ffi::json::Array>();
  std::vector<ffi::Tensor> values;
  if (auto single = result.as<ffi::Tensor>()) {
    values.push_back(*single);
  } else {
    for (const ffi::Any& value : result.cast<ffi::Array<ffi::Any>>()) {
      values.push_back(value.cast<ffi::Tensor>());
    }
  }
  for (std::size_t index = 0; index < values.size(); ++index) {
    WriteTensor(outputs[index].cast<ffi::json::Object>(), folder, values[index]);
  }
  std::cout << values.size() << " outputs, fastest of " << calls << " calls " << best << " ms\n";
}

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::cerr << "usage: run_artifact DIR FOLDER [CALLS]\n";
    return 2;
  }
  try {
    Run(argv[1], argv[2], argc > 3 ? std::max(1, std::atoi(argv[3])) : 1);
  } catch (const std::exception& error) {
    std::cerr << "run_artifact: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
