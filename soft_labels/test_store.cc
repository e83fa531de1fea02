#include "soft_labels/test_store.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "corpus/index.h"
#include "corpus/reader.h"
#include "soft_labels/decode.h"
#include "soft_labels/record_input.h"
#include "soft_labels/store_folder.h"
#include "soft_labels/store_parts.h"
#include "soft_labels/store_writer.h"

namespace polystill::soft_labels {

v1::DescribeReply TestTeacher() {
  v1::DescribeReply teacher;
  teacher.set_name("english");
  teacher.set_digest("d1");
  teacher.set_backend("libtorch/cpu");
  teacher.mutable_signature()->set_input(v1::Signature::INPUT_TEXT);
  teacher.mutable_signature()->set_vocab_size(100);
  teacher.mutable_signature()->set_max_length(64);
  for (const char* label : {"games", "net"}) teacher.mutable_signature()->add_labels(label);
  v1::Feature& feature = *teacher.add_features();
  feature.set_name("embedding");
  feature.set_width(3);
  teacher.mutable_head()->set_width(3);
  return teacher;
}

v1::LabelSpec TestSpec(v1::Codec codec) {
  v1::LabelSpec spec;
  spec.set_codec(codec);
  spec.add_outputs(kLogits);
  if (IsDense(codec)) spec.add_outputs("embedding");
  if (HasTemperature(codec)) spec.set_temperature(2);
  if (codec == v1::CODEC_TOP_K) spec.set_k(1);
  if (codec == v1::CODEC_SAMPLED) spec.set_draws(7);
  return spec;
}

Outputs TestOutputs(const v1::LabelSpec& spec) { return OutputsOf(spec, TestTeacher()).value(); }

namespace {

Array ArrayOf(const std::string& id, const v1::LabelSpec& spec, const Output& output) {
  const auto number = static_cast<float>(std::hash<std::string>()(id) % 1000) / 1000;
  const float log_p = std::log(0.2f + 0.6f * number);
  switch (spec.codec()) {
    case v1::CODEC_TOP_K:
      return {{log_p, std::log1p(-std::exp(log_p))}, 2, {id.size() % 2 == 0}};
    case v1::CODEC_SAMPLED:
      return {{0.5f * number}, 1, {0, 1}, {3, 4}, {0, 2}};
    case v1::CODEC_CLASSES:
      return {{}, 0, {id.size() % 2 == 0}};
    default: {
      Array array{{}, spec.codec() == v1::CODEC_HIDDEN_HEAD ? output.head_width : output.width};
      for (int64_t i = 0; i < array.width; ++i) array.numbers.push_back(number + static_cast<float>(i));
      return array;
    }
  }
}

}  // namespace

LabelledRecord TestLabels(const std::string& id, const std::string& language, const v1::LabelSpec& spec) {
  LabelledRecord record{id, language, {}};
  for (const Output& output : TestOutputs(spec)) {
    record.labels.push_back(Encode(ArrayOf(id, spec, output), spec, output, 1).value());
  }
  return record;
}

v1::LabelStoreManifest TestJob(const v1::Selection& selection, const v1::LabelSpec& spec) {
  v1::LabelStoreManifest job;
  *job.mutable_teacher() = TestTeacher();
  *job.mutable_spec() = spec;
  job.set_reads(v1::SIDE_TEXT);
  *job.mutable_selection() = selection;
  const v1::CorpusIndex index = corpus::BuildIndex(selection).value();
  *job.mutable_corpus_files() = index.files();
  job.set_corpus_digest(corpus::IndexDigest(index));
  job.set_part_records(1000);
  return job;
}

void WriteTestStore(const std::string& folder, const v1::Selection& selection, const v1::LabelSpec& spec,
                    int64_t part_records) {
  v1::LabelStoreManifest manifest = TestJob(selection, spec);
  manifest.set_part_records(part_records);
  const auto store = StoreFolder::Open(folder, manifest);
  ASSERT_TRUE(store.ok()) << store.status();
  const auto index = std::make_shared<const v1::CorpusIndex>(corpus::BuildIndex(selection).value());
  const auto reader = corpus::Reader::Open(index).value();
  const PartPlan plan(*index, part_records);
  for (int64_t i = 0; i < plan.size(); ++i) {
    const PlannedPart part = plan.Part(i);
    const auto writer = PartWriter::Create((*store)->PathOfPart(part.name), spec, TestOutputs(spec)).value();
    const std::vector<corpus::Record> records = reader->Read(part.records).value();
    for (const corpus::Record& record : records) {
      ASSERT_TRUE(writer->Append(TestLabels(record.id, record.language, spec)).ok());
    }
    v1::LabelStoreManifest::Part& entry = *manifest.add_parts();
    *entry.mutable_file() = writer->Finish().value();
    *entry.mutable_unit() = part.unit;
    entry.mutable_languages()->insert(part.languages.begin(), part.languages.end());
    ASSERT_TRUE((*store)->NoteFinished(entry.file()).ok());
  }
  manifest.set_records(plan.records());
  ASSERT_TRUE((*store)->Seal(manifest).ok());
}

TestRecords::TestRecords(const v1::CorpusIndex& index) {
  const auto reader = corpus::Reader::Open(std::make_shared<const v1::CorpusIndex>(index)).value();
  for (int language = 0; language < index.languages_size(); ++language) {
    for (int block = 0; block < index.languages(language).blocks_size(); ++block) {
      int64_t row = 0;
      const std::vector<corpus::Record> records = reader->ReadBlock(language, block).value();
      for (const corpus::Record& record : records) {
        refs.push_back({language, 0, block, row++});
        inputs.push_back(LabelInputOf(record, v1::SIDE_TEXT, v1::Signature::INPUT_TEXT));
        languages.push_back(record.language);
      }
    }
  }
}

}  // namespace polystill::soft_labels
