// Deterministic mutations of well-formed inputs, for readers that must survive any bytes.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

namespace ebbtide::mutation {

// The same seed gives the same sequence of mutations everywhere.
class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  // One to four changes of bytes, pieces and numbers.
  std::string mutate(std::string text) {
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(random_() % bound); }

  void change(std::string& text) {
    static constexpr std::array<std::string_view, 14> kPieces{",",
                                                              "\n",
                                                              "\r\n",
                                                              "-",
                                                              "@0:4",
                                                              "9223372036854775807",
                                                              "-9223372036854775808",
                                                              "99999999999999999999",
                                                              "\"",
                                                              " ",
                                                              std::string_view("\0", 1),
                                                              "end",
                                                              "\xFF\xFE",
                                                              "(0K"};
    const std::size_t at = below(text.size() + 1);
    switch (below(6)) {
      case 0:
        text.insert(at, kPieces[below(kPieces.size())]);
        break;
      case 1:
        text.erase(at, 1 + below(8));
        break;
      case 2:
        text.resize(at);
        break;
      case 3:
        text.insert(at, text.substr(below(text.size() + 1), below(40)));
        break;
      default:
        if (at < text.size()) text[at] = static_cast<char>(random_());
    }
  }

  std::mt19937_64 random_;
};

}  // namespace ebbtide::mutation
