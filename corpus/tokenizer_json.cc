#include "corpus/tokenizer_json.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/wordpiece.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMostIds = int64_t{1} << 24;
constexpr int64_t kMostCharactersPerWord = 1'000'000;

absl::Status Wrong(const std::string& key, const std::string& what) {
  return absl::DataLossError(absl::StrCat(key, ": ", what));
}

absl::Status NotOurs(const std::string& key, const std::string& what) {
  return absl::UnimplementedError(
      absl::StrCat(key, ": ", what,
                   " is not built in, WordPiece as BERT has it is; write an ids column with polystill-tokenize, which "
                   "takes any tokenizer.json, set tokenizer.kind: ids, and give packages signature.input: ids"));
}

// The member of an object, or null.
const Json& Member(const Json& object, const char* key) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

std::string TypeOf(const Json& part) {
  const Json& type = Member(part, "type");
  return type.is_string() ? type.get<std::string>() : "";
}

// A flag of `object`, which is called `path` in errors; `otherwise` when it is left out.
absl::Status ReadFlag(const Json& object, const std::string& path, const char* key, bool otherwise, bool* value) {
  const Json& flag = Member(object, key);
  if (!flag.is_null() && !flag.is_boolean()) return Wrong(absl::StrCat(path, ".", key), "must be true or false");
  *value = flag.is_null() ? otherwise : flag.get<bool>();
  return absl::OkStatus();
}

absl::Status ReadText(const Json& object, const std::string& path, const char* key, std::string* value) {
  const Json& text = Member(object, key);
  if (!text.is_string()) return Wrong(absl::StrCat(path, ".", key), "must be a text");
  *value = text.get<std::string>();
  return absl::OkStatus();
}

absl::Status ReadInteger(const Json& number, const std::string& path, int64_t most, int64_t* value) {
  if (!number.is_number_integer() || number.get<int64_t>() < 0 || number.get<int64_t>() >= most) {
    return Wrong(path, absl::StrCat("must be an integer in [0, ", most, ")"));
  }
  *value = number.get<int64_t>();
  return absl::OkStatus();
}

absl::Status ReadId(const Json& number, const std::string& path, int32_t* id) {
  int64_t value = 0;
  RETURN_IF_ERROR(ReadInteger(number, path, kMostIds, &value));
  *id = static_cast<int32_t>(value);
  return absl::OkStatus();
}

absl::Status ReadNormalizer(const Json& normalizer, BertNormalizer* read) {
  if (normalizer.is_null()) return absl::OkStatus();
  if (TypeOf(normalizer) != "BertNormalizer") {
    return NotOurs("normalizer", absl::StrCat("type '", TypeOf(normalizer), "'"));
  }
  RETURN_IF_ERROR(ReadFlag(normalizer, "normalizer", "clean_text", true, &read->clean_text));
  RETURN_IF_ERROR(ReadFlag(normalizer, "normalizer", "handle_chinese_chars", true, &read->handle_chinese_chars));
  RETURN_IF_ERROR(ReadFlag(normalizer, "normalizer", "lowercase", true, &read->lowercase));
  // Where it is null, accents go with the capitals.
  return ReadFlag(normalizer, "normalizer", "strip_accents", read->lowercase, &read->strip_accents);
}

// Files that are older than the key are known by what only WordPiece has.
bool IsWordPiece(const Json& model) {
  return TypeOf(model) == "WordPiece" || (TypeOf(model).empty() && model.contains("max_input_chars_per_word"));
}

absl::Status ReadModel(const Json& model, WordPieceParts* parts) {
  if (!model.is_object()) return Wrong("model", "is missing");
  if (!IsWordPiece(model)) return NotOurs("model", absl::StrCat("type '", TypeOf(model), "'"));
  RETURN_IF_ERROR(ReadText(model, "model", "unk_token", &parts->unk_token));
  RETURN_IF_ERROR(ReadText(model, "model", "continuing_subword_prefix", &parts->continuing_subword_prefix));
  RETURN_IF_ERROR(ReadInteger(Member(model, "max_input_chars_per_word"), "model.max_input_chars_per_word",
                              kMostCharactersPerWord, &parts->max_input_chars_per_word));
  const Json& vocabulary = Member(model, "vocab");
  if (!vocabulary.is_object()) return Wrong("model.vocab", "must be an object: piece to id");
  for (const auto& [piece, id] : vocabulary.items()) {
    RETURN_IF_ERROR(ReadId(id, absl::StrCat("model.vocab: '", piece, "'"), &parts->vocabulary[piece]));
  }
  if (parts->vocabulary.contains(parts->unk_token)) return absl::OkStatus();
  return Wrong("model.unk_token", absl::StrCat("'", parts->unk_token, "' is not in model.vocab"));
}

// A token that the vocabulary lacks gets the next id of all.
int32_t IdOf(const std::string& content, const WordPieceParts& parts, int32_t next) {
  const auto found = parts.vocabulary.find(content);
  if (found != parts.vocabulary.end()) return found->second;
  for (const AddedToken& token : parts.added_tokens) {
    if (Utf8Of(token.content) == content) return token.id;
  }
  return next;
}

absl::Status ReadAddedTokens(const Json& list, WordPieceParts* parts) {
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array()) return Wrong("added_tokens", "must be a list");
  auto next = static_cast<int32_t>(parts->vocabulary.size());
  std::vector<AddedToken> ordinary;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = absl::StrCat("added_tokens.", i);
    AddedToken token;
    std::string content;
    bool special = false;
    RETURN_IF_ERROR(ReadText(list[i], path, "content", &content));
    RETURN_IF_ERROR(ReadId(Member(list[i], "id"), absl::StrCat(path, ".id"), &token.id));
    RETURN_IF_ERROR(ReadFlag(list[i], path, "single_word", false, &token.single_word));
    RETURN_IF_ERROR(ReadFlag(list[i], path, "lstrip", false, &token.lstrip));
    RETURN_IF_ERROR(ReadFlag(list[i], path, "rstrip", false, &token.rstrip));
    RETURN_IF_ERROR(ReadFlag(list[i], path, "normalized", true, &token.normalized));
    RETURN_IF_ERROR(ReadFlag(list[i], path, "special", false, &special));
    token.content = Characters(content);
    const bool nothing = token.normalized && parts->normalizer.Normalize(token.content).empty();
    if (token.content.empty() || nothing)
      return Wrong(absl::StrCat(path, ".content"), "is empty, or normalised to nothing");
    if (const int32_t id = IdOf(content, *parts, next); id != token.id) {
      return Wrong(absl::StrCat(path, ".id"), absl::StrCat("is ", token.id, ", but '", content, "' has the id ", id));
    }
    next = std::max(next, token.id + 1);
    (special ? parts->added_tokens : ordinary).push_back(std::move(token));
  }
  parts->added_tokens.insert(parts->added_tokens.end(), std::make_move_iterator(ordinary.begin()),
                             std::make_move_iterator(ordinary.end()));
  return absl::OkStatus();
}

// Ids of the special token that a template calls `name`.
absl::Status ReadSpecial(const Json& processor, const std::string& name, std::vector<int32_t>* ids) {
  const std::string path = absl::StrCat("post_processor.special_tokens.", name, ".ids");
  const Json& listed = Member(Member(Member(processor, "special_tokens"), name.c_str()), "ids");
  if (!listed.is_array()) return Wrong(path, "must be a list of ids");
  for (const Json& id : listed) RETURN_IF_ERROR(ReadId(id, path, &ids->emplace_back()));
  return absl::OkStatus();
}

absl::Status ReadTemplate(const Json& processor, TokenizerJson* read) {
  const Json& pieces = Member(processor, "single");
  if (!pieces.is_array()) return Wrong("post_processor.single", "must be a list");
  int sequences = 0;
  for (const Json& piece : pieces) {
    if (const Json& special = Member(piece, "SpecialToken"); !special.is_null()) {
      std::string name;
      RETURN_IF_ERROR(ReadText(special, "post_processor.single: SpecialToken", "id", &name));
      RETURN_IF_ERROR(ReadSpecial(processor, name, sequences == 0 ? &read->before : &read->after));
    } else if (Member(Member(piece, "Sequence"), "id") == "A") {
      ++sequences;
    } else {
      return Wrong("post_processor.single", "holds something else than special tokens and the sequence A");
    }
  }
  if (sequences == 1) return absl::OkStatus();
  return NotOurs("post_processor.single", absl::StrCat("the text ", sequences, " times"));
}

absl::Status ReadPair(const Json& processor, const char* key, std::vector<int32_t>* ids) {
  const Json& pair = Member(processor, key);
  const std::string path = absl::StrCat("post_processor.", key);
  if (!pair.is_array() || pair.size() != 2) return Wrong(path, "must be a list of a token and its id");
  return ReadId(pair[1], path, &ids->emplace_back());
}

absl::Status ReadPostProcessor(const Json& processor, TokenizerJson* read) {
  if (processor.is_null()) return absl::OkStatus();
  if (TypeOf(processor) == "TemplateProcessing") return ReadTemplate(processor, read);
  if (TypeOf(processor) != "BertProcessing") {
    return NotOurs("post_processor", absl::StrCat("type '", TypeOf(processor), "'"));
  }
  RETURN_IF_ERROR(ReadPair(processor, "cls", &read->before));
  return ReadPair(processor, "sep", &read->after);
}

absl::Status CheckFrame(const TokenizerJson& read) {
  for (const auto* ids : {&read.before, &read.after}) {
    for (const int32_t id : *ids) {
      if (id < read.model->vocab_size()) continue;
      return Wrong("post_processor", absl::StrCat("id ", id, " stands for nothing"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerJson> ReadTokenizerJson(const std::string& bytes) {
  const Json file = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!file.is_object()) return absl::DataLossError("is not a whole JSON object");
  WordPieceParts parts;
  RETURN_IF_ERROR(ReadModel(Member(file, "model"), &parts));
  RETURN_IF_ERROR(ReadNormalizer(Member(file, "normalizer"), &parts.normalizer));
  if (const std::string type = TypeOf(Member(file, "pre_tokenizer")); type != "BertPreTokenizer") {
    return NotOurs("pre_tokenizer", absl::StrCat("type '", type, "'"));
  }
  if (Member(Member(file, "truncation"), "direction") == "Left") return NotOurs("truncation.direction", "'Left'");
  RETURN_IF_ERROR(ReadAddedTokens(Member(file, "added_tokens"), &parts));
  TokenizerJson read;
  RETURN_IF_ERROR(ReadPostProcessor(Member(file, "post_processor"), &read));
  read.model = std::make_unique<WordPieceModel>(std::move(parts));
  RETURN_IF_ERROR(CheckFrame(read));
  return read;
}

}  // namespace polystill::corpus
