#include "student_worker/batch.h"

namespace polystill::student_worker {

int64_t Batch::CountRows(RowsOf rows, int64_t first, int64_t last) const {
  if (rows == RowsOf::kRecords || (rows == RowsOf::kJudged && !judges_tokens)) return last - first;
  const bool some = rows == RowsOf::kJudged && !positions.empty();
  int64_t count = 0;
  for (int64_t record = first; record < last; ++record) {
    count += static_cast<int64_t>(some ? positions[record].size() : tokens[record].size());
  }
  return count;
}

}  // namespace polystill::student_worker
