#include "coordinator/event_file.h"

#include <array>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

constexpr char kVersion[] = "brain.Event:2";
// The polynomial of RFC 3720, reflected.
constexpr uint32_t kPolynomial = 0x82F63B78;

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? kPolynomial : 0);
    table[byte] = rest;
  }
  return table;
}

template <typename Number>
void AppendLittleEndian(Number number, std::string* out) {
  for (size_t i = 0; i < sizeof(number); ++i) out->push_back(static_cast<char>(number >> (8 * i)));
}

// As the framing wants it, so that a CRC of data that holds CRCs is still a good one.
uint32_t Masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8; }

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = MakeTable();
  uint32_t crc = ~uint32_t{0};
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Create(const std::string& path, double wall_time) {
  RETURN_IF_ERROR(MakeFolder(std::filesystem::path(path).parent_path().string()));
  std::unique_ptr<EventFile> file(new EventFile(path));
  v1::TensorBoardEvent first;
  first.set_wall_time(wall_time);
  first.set_file_version(kVersion);
  RETURN_IF_ERROR(file->Append(first));
  return file;
}

absl::Status EventFile::Append(const v1::TensorBoardEvent& event) {
  const std::string data = event.SerializeAsString();
  std::string record;
  AppendLittleEndian(uint64_t{data.size()}, &record);
  AppendLittleEndian(Masked(Crc32c(record)), &record);
  record += data;
  AppendLittleEndian(Masked(Crc32c(data)), &record);
  file_.write(record.data(), static_cast<std::streamsize>(record.size())).flush();
  if (file_.good()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(path_, ": cannot write; is the disk full?"));
}

}  // namespace polystill::coordinator
