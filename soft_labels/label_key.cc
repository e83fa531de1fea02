#include "soft_labels/label_key.h"

#include <bit>
#include <cstring>
#include <string_view>

#include "absl/strings/escaping.h"
#include "runtime/sha256.h"
#include "soft_labels/codec.h"

namespace polystill::soft_labels {
namespace {

constexpr std::string_view kVersion = "polystill label key 1";

void AddInteger(uint64_t value, std::string* bytes) {
  static_assert(std::endian::native == std::endian::little);
  bytes->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AddField(std::string_view field, std::string* bytes) {
  AddInteger(field.size(), bytes);
  bytes->append(field);
}

void AddIntegerField(uint64_t value, std::string* bytes) {
  AddInteger(sizeof(value), bytes);
  AddInteger(value, bytes);
}

template <typename Numbers>
void AddList(const Numbers& numbers, std::string* bytes) {
  AddInteger(numbers.size() * sizeof(uint64_t), bytes);
  for (const auto number : numbers) AddInteger(static_cast<uint64_t>(number), bytes);
}

double TemperatureOf(const v1::LabelSpec& spec) {
  if (!HasTemperature(spec.codec())) return 0;
  return spec.temperature() == 0 ? 1 : spec.temperature();
}

}  // namespace

LabelKeys::LabelKeys(const v1::DescribeReply& teacher, const v1::LabelSpec& spec, const Output& output)
    : codec_(spec.codec() == v1::CODEC_UNSPECIFIED ? v1::CODEC_DENSE_FP32 : spec.codec()),
      at_positions_(output.of_tokens && output.name == kLogits) {
  AddField(kVersion, &prefix_);
  AddField(teacher.digest(), &prefix_);
  AddField(teacher.tokenizer_sha256(), &prefix_);
  AddField(teacher.backend(), &prefix_);
  AddIntegerField(static_cast<uint64_t>(teacher.signature().max_length()), &prefix_);
  AddField(output.name, &prefix_);
  const bool sampled = codec_ == v1::CODEC_SAMPLED;
  AddIntegerField(static_cast<uint64_t>(codec_), &prefix_);
  AddIntegerField(std::bit_cast<uint64_t>(TemperatureOf(spec)), &prefix_);
  AddIntegerField(codec_ == v1::CODEC_TOP_K ? static_cast<uint64_t>(spec.k()) : 0, &prefix_);
  AddIntegerField(sampled ? static_cast<uint64_t>(spec.draws()) : 0, &prefix_);
  AddIntegerField(sampled ? spec.seed() : 0, &prefix_);
}

std::string LabelKeys::KeyOf(const v1::LabelInput& input) const {
  using Numbers = google::protobuf::RepeatedField<int32_t>;
  std::string bytes = prefix_;
  AddIntegerField(codec_ == v1::CODEC_SAMPLED ? input.draw() : 0, &bytes);
  AddList(codec_ == v1::CODEC_SCORES ? input.score_ids() : Numbers(), &bytes);
  AddList(at_positions_ ? input.positions() : Numbers(), &bytes);
  AddField(input.has_ids() ? "ids" : "text", &bytes);
  if (input.has_ids()) {
    AddList(input.ids().ids(), &bytes);
  } else {
    AddField(input.text(), &bytes);
  }
  return absl::HexStringToBytes(Sha256Hex(bytes));
}

uint64_t KeyWord(const std::string& key) {
  uint64_t word = 0;
  std::memcpy(&word, key.data(), sizeof(word));
  return word;
}

}  // namespace polystill::soft_labels
