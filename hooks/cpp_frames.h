// The C++ stack of the calling thread.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace ebbtide {

// The return addresses of the calls that are under way, the innermost first. Throws what torch's unwinder throws of code
// that it cannot unwind.
std::vector<void*> return_addresses(std::size_t most);

// "library+0xoffset function" of each, without those of the unwinder and of the adaptor; `up_to_python`: without what called
// the innermost frame of Python, because from there on Python's own frames say more, and without the interpreter's calls.
std::vector<std::string> texts_of(const std::vector<void*>& addresses, bool up_to_python);

}  // namespace ebbtide
