// The Python stack of the calling thread, through CPython's C interface in the process, if there is one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ebbtide {

// What is used of CPython. Found by name: the adaptors serve programs without Python, too.
struct PythonApi;

// Holds the GIL while it lives, if the thread runs Python at all: make it without any lock. Works with an exception
// pending. Nothing here throws but std::bad_alloc.
class PythonFrames {
 public:
  PythonFrames();
  ~PythonFrames();
  PythonFrames(const PythonFrames&) = delete;
  PythonFrames& operator=(const PythonFrames&) = delete;

  // Two words for each frame, the innermost first: its code and the instruction in it. At most `most` frames.
  void append_key(std::vector<std::uint64_t>& key, std::size_t most);
  // "file:line function" of the frames of append_key().
  std::vector<std::string> texts();
  // Their codes stay for ever, so that no other code gets their addresses: a key stays true.
  void keep();

 private:
  struct Frame {
    void* code;  // a reference of ours
    int instruction;
  };

  const PythonApi* api_ = nullptr;  // null: the thread runs no Python
  int state_ = 0;                   // PyGILState_STATE
  std::vector<Frame> frames_;
};

}  // namespace ebbtide
