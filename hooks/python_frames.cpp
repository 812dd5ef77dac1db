#include "hooks/python_frames.h"

#include <dlfcn.h>

#include <memory>
#include <utility>

#include "hooks/python_lock.h"

namespace ebbtide {

// Objects are void*: the layout of none is used, so one binary serves every CPython from 3.10 on.
struct PythonApi {
  int (*is_initialized)();
  int (*is_finalizing)();
  void* (*this_thread_state)();
  int (*take_gil)();
  void (*release_gil)(int);
  void* (*current_frame)();       // borrowed
  void* (*caller)(void*);         // a new reference, or null
  void* (*code)(void*);           // a new reference
  int (*instruction)(void*);      // null before 3.11
  int (*line)(void*);             // of a frame
  int (*line_of)(void*, int);     // of a code's instruction
  void (*take)(void*);
  void (*drop)(void*);
  void* (*attribute)(void*, const char*);
  const char* (*utf8)(void*, std::ptrdiff_t*);
  void (*fetch_error)(void**, void**, void**);
  void (*restore_error)(void*, void*, void*);
};

namespace {

template <typename Function>
bool find(Function& function, const char* name) {
  function = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
  return function != nullptr;
}

const PythonApi* find_python() {
  static const std::unique_ptr<const PythonApi> found = [] {
    auto api = std::make_unique<PythonApi>();
    const bool is_whole =
        find(api->is_initialized, "Py_IsInitialized") &&
        (find(api->is_finalizing, "Py_IsFinalizing") || find(api->is_finalizing, "_Py_IsFinalizing")) &&
        find(api->this_thread_state, "PyGILState_GetThisThreadState") && find(api->take_gil, "PyGILState_Ensure") &&
        find(api->release_gil, "PyGILState_Release") && find(api->current_frame, "PyEval_GetFrame") &&
        find(api->caller, "PyFrame_GetBack") && find(api->code, "PyFrame_GetCode") &&
        find(api->line, "PyFrame_GetLineNumber") && find(api->line_of, "PyCode_Addr2Line") &&
        find(api->take, "Py_IncRef") && find(api->drop, "Py_DecRef") &&
        find(api->attribute, "PyObject_GetAttrString") && find(api->utf8, "PyUnicode_AsUTF8AndSize") &&
        find(api->fetch_error, "PyErr_Fetch") && find(api->restore_error, "PyErr_Restore");
    find(api->instruction, "PyFrame_GetLasti");
    return is_whole ? std::move(api) : nullptr;
  }();
  return found.get();
}

// A text attribute of a code; empty if it has none.
std::string text_of(const PythonApi& api, void* code, const char* name) {
  void* value = api.attribute(code, name);
  std::ptrdiff_t size = 0;
  const char* text = value == nullptr ? nullptr : api.utf8(value, &size);
  std::string copy = text == nullptr ? "" : std::string(text, static_cast<std::size_t>(size));
  if (value != nullptr) api.drop(value);
  return copy;
}

// What asks for the attributes may not disturb an exception that is on its way through the program.
class ErrorsAside {
 public:
  explicit ErrorsAside(const PythonApi& api) : api_(api) { api.fetch_error(&type_, &value_, &traceback_); }
  ~ErrorsAside() { api_.restore_error(type_, value_, traceback_); }
  ErrorsAside(const ErrorsAside&) = delete;
  ErrorsAside& operator=(const ErrorsAside&) = delete;

 private:
  const PythonApi& api_;
  void *type_ = nullptr, *value_ = nullptr, *traceback_ = nullptr;
};

}  // namespace

PythonFrames::PythonFrames() {
  const PythonApi* api = find_python();
  // A thread without a state has no frames, and an interpreter that ends lets nobody have the GIL again.
  if (api == nullptr || api->is_initialized() == 0 || api->is_finalizing() != 0 || api->this_thread_state() == nullptr) return;
  state_ = take_python_lock(api->take_gil);  // it may begin to end now
  api_ = api;
}

PythonFrames::~PythonFrames() {
  if (api_ == nullptr) return;
  for (const Frame& frame : frames_) api_->drop(frame.code);
  api_->release_gil(state_);
}

void PythonFrames::append_key(std::vector<std::uint64_t>& key, std::size_t most) {
  if (api_ == nullptr) return;
  frames_.reserve(most);
  key.reserve(key.size() + 2 * most);
  void* frame = api_->current_frame();
  if (frame != nullptr) api_->take(frame);
  while (frame != nullptr && frames_.size() < most) {
    // Before 3.11 a frame tells its line alone: told apart from an instruction by its sign.
    frames_.push_back({api_->code(frame), api_->instruction != nullptr ? api_->instruction(frame) : -api_->line(frame)});
    key.push_back(reinterpret_cast<std::uintptr_t>(frames_.back().code));
    key.push_back(static_cast<std::uint64_t>(frames_.back().instruction));
    void* caller = api_->caller(frame);
    api_->drop(frame);
    frame = caller;
  }
  if (frame != nullptr) api_->drop(frame);
}

std::vector<std::string> PythonFrames::texts() {
  std::vector<std::string> texts;
  if (api_ == nullptr) return texts;
  const ErrorsAside aside(*api_);
  for (const Frame& frame : frames_) {
    const bool is_line = api_->instruction == nullptr;
    const int line = is_line ? -frame.instruction : api_->line_of(frame.code, frame.instruction);
    std::string name = text_of(*api_, frame.code, "co_qualname");  // since 3.11
    if (name.empty()) name = text_of(*api_, frame.code, "co_name");
    std::string text = text_of(*api_, frame.code, "co_filename");
    text.append(":").append(std::to_string(line)).append(" ").append(name);
    texts.push_back(std::move(text));
  }
  return texts;
}

void PythonFrames::keep() {
  for (const Frame& frame : frames_) api_->take(frame.code);
}

}  // namespace ebbtide
