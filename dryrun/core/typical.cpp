#include "dryrun/core/typical.h"

#include <charconv>
#include <cmath>
#include <cstdio>

namespace ebbtide::dryrun {

namespace {

Error wrong(std::string_view part, const char* remedy) {
  return Error{ErrorCode::kInvalidArgument, '"' + std::string(part) + "\": " + remedy};
}

Status read_choice(std::string_view part, std::string_view value, TypicalValues& typical) {
  if (value != "even" && value != "first") return wrong(part, "write choice=even or choice=first");
  typical.spreads_choices = value == "even";
  return Nothing{};
}

Status read_part(std::string_view part, TypicalValues& typical) {
  const std::size_t sign = part.find('=');
  const std::string_view name = part.substr(0, sign);
  const std::string_view value = sign == part.npos ? "" : part.substr(sign + 1);
  if (name == "choice") return read_choice(part, value, typical);
  double* const number = name == "number"      ? &typical.number
                         : name == "low"       ? &typical.low
                         : name == "high"      ? &typical.high
                         : name == "found_inf" ? &typical.found_inf
                                               : nullptr;
  if (number == nullptr) {
    return wrong(part, "known are number, low, high, choice and found_inf, e.g. number=2.5");
  }
  const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), *number);
  if (code != std::errc{} || end != value.data() + value.size()) {
    return wrong(part, "write a number after the =");
  }
  if (number == &typical.found_inf && *number != 0 && *number != 1) {
    return wrong(part, "write found_inf=0 (steps are taken) or found_inf=1 (they are skipped)");
  }
  return Nothing{};
}

}  // namespace

Result<TypicalValues> parse_typical(std::string_view text) {
  TypicalValues typical;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    const Status status = read_part(text.substr(0, comma), typical);
    if (!status) return status.error();
    text = comma == text.npos ? "" : text.substr(comma + 1);
  }
  if (!std::isfinite(typical.low) || !std::isfinite(typical.high) || typical.low >= typical.high) {
    return Error{ErrorCode::kInvalidArgument, "low must be less than high, and both finite"};
  }
  return typical;
}

std::string to_text(const TypicalValues& typical) {
  char text[160];
  std::snprintf(text, sizeof text, "number=%g,low=%g,high=%g,choice=%s,found_inf=%g",
                typical.number, typical.low, typical.high,
                typical.spreads_choices ? "even" : "first", typical.found_inf);
  return text;
}

}  // namespace ebbtide::dryrun
