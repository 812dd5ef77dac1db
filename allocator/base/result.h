// Expected failures as values: a code to branch on and a message for a person.
#pragma once

#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace ebbtide {

enum class ErrorCode {
  kInvalidArgument,    // a setting, a call or a file that the user can correct
  kOutOfDeviceMemory,
  kOutOfHostMemory,
  kInfeasible,         // no solution exists under the given limits
  kTimeout,
  kPlanMismatch,       // the program did not do what the plan expects
  kBadPlan,            // a plan that the validator refuses, or a plan file that cannot be read
  kBadTrace,           // a trace file that cannot be read
  kUnsupported,        // this version of torch, this device, this setting
  kSystem,             // the operating system or the driver refused
};

// The code's name as used in messages and in the C ABI, e.g. "bad_plan".
const char* to_string(ErrorCode code);

struct Error {
  ErrorCode code;
  std::string message;
};

// Either a value or an Error. Requires of value(): ok(). Requires of error(): !ok().
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  const T& value() const& { return *checked_value(); }
  T& value() & { return *const_cast<T*>(checked_value()); }
  T&& value() && { return std::move(*const_cast<T*>(checked_value())); }
  const Error& error() const {
    const Error* error = std::get_if<1>(&state_);
    if (error == nullptr) std::abort();
    return *error;
  }

 private:
  const T* checked_value() const {
    const T* value = std::get_if<0>(&state_);
    if (value == nullptr) std::abort();
    return value;
  }

  std::variant<T, Error> state_;
};

struct Nothing {};
using Status = Result<Nothing>;

}  // namespace ebbtide
