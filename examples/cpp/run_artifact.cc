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

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

// A piece of memory that is somebody else's.
struct Given {
  char* place;
  void AllocData(DLTensor* tensor) { tensor->data = place; }
  void FreeData(DLTensor*) {}
};

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename Memory>
ffi::Tensor MakeTensor(const ffi::json::Object& entry, Memory memory) {
  std::vector<int64_t> shape;
  for (const ffi::Any& extent : entry["shape"].cast<ffi::json::Array>()) {
    shape.push_back(extent.cast<int64_t>());
  }
  DLDataType dtype = ffi::StringToDLDataType(entry["dtype"].cast<ffi::String>());
  return ffi::Tensor::FromNDAlloc(memory, ffi::Shape(shape), dtype, DLDevice{kDLCPU, 0});
}

// The bytes of the array in an .npy file, for as long as the process lives. Its header makes them
// begin at a multiple of 64.
char* MapArray(const std::string& path) {
  int file = open(path.c_str(), O_RDONLY);
  struct stat status;
  if (file < 0 || fstat(file, &status) != 0) throw std::runtime_error("cannot read " + path);
  void* all = mmap(nullptr, status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  close(file);
  if (all == MAP_FAILED) throw std::runtime_error("cannot map " + path);
  auto* bytes = static_cast<unsigned char*>(all);
  std::size_t length = bytes[8] | bytes[9] << 8;
  if (bytes[6] != 1) throw std::runtime_error(path + " is of another version of .npy");
  return static_cast<char*>(all) + 10 + length;
}

// What the program takes after its inputs; sizes of one artifact share the file above them.
std::vector<ffi::Tensor> Weights(const ffi::json::Object& manifest, const std::string& artifact) {
  std::vector<ffi::Tensor> weights;
  auto places = manifest["weights"].cast<ffi::json::Array>();
  if (places.empty()) return weights;
  bool own = manifest["files"].cast<ffi::json::Object>().count("weights.npy");
  char* bytes = MapArray(artifact + (own ? "/weights.npy" : "/../weights.npy"));
  for (const ffi::Any& place : places) {
    auto entry = place.cast<ffi::json::Object>();
    weights.push_back(MakeTensor(entry, Given{bytes + entry["offset"].cast<int64_t>()}));
  }
  return weights;
}

ffi::Tensor ReadTensor(const ffi::json::Object& entry, const std::string& folder) {
  ffi::Tensor tensor = MakeTensor(entry, Aligned());
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
  std::vector<ffi::Tensor> weights = Weights(manifest, artifact);
  std::vector<ffi::AnyView> arguments(inputs.begin(), inputs.end());
  arguments.insert(arguments.end(), weights.begin(), weights.end());
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
