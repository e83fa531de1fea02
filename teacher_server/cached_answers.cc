#include "teacher_server/cached_answers.h"

#include <map>
#include <utility>

#include "runtime/mutex.h"

namespace polystill::teacher_server {

// A label that this call is to compute.
struct CachedAnswers::Leased {
  int record;
  int output;
  LabelCache::Lease lease;
  // Of its record in the request that is computed.
  size_t place = 0;
};

struct CachedAnswers::Call {
  // Once only.
  void End(absl::StatusOr<Answer> answer) {
    {
      MutexLock lock(&mutex);
      if (std::exchange(ended, true)) return;
    }
    done(std::move(answer));
  }

  v1::LabelRequest request;
  Requester requester;
  Done done;

  Mutex mutex;
  LabelParts parts ABSL_GUARDED_BY(mutex);
  int64_t missing ABSL_GUARDED_BY(mutex) = 0;
  bool ended ABSL_GUARDED_BY(mutex) = false;
  // While the cache is asked, leases gather here; those that come later are computed one by one.
  bool gathers ABSL_GUARDED_BY(mutex) = true;
  std::vector<Leased> gathered ABSL_GUARDED_BY(mutex);
};

void CachedAnswers::Ask(v1::LabelRequest request, Requester requester, Done done) {
  const auto call = std::make_shared<Call>();
  const std::vector<std::vector<std::string>> keys = parts_.keys(request);
  call->request = std::move(request);
  call->requester = std::move(requester);
  call->done = std::move(done);
  {
    MutexLock lock(&call->mutex);
    for (const auto& of_record : keys) {
      call->parts.emplace_back(of_record.size());
      call->missing += static_cast<int64_t>(of_record.size());
    }
  }
  for (size_t record = 0; record < keys.size(); ++record) {
    for (size_t output = 0; output < keys[record].size(); ++output) {
      cache_->Ask(keys[record][output], call->requester.cancelled,
                  [this, call, record, output](LabelCache::Outcome outcome) {
                    Take(call, static_cast<int>(record), static_cast<int>(output), std::move(outcome));
                  });
    }
  }
  std::vector<Leased> gathered;
  {
    MutexLock lock(&call->mutex);
    call->gathers = false;
    gathered = std::move(call->gathered);
  }
  if (!gathered.empty()) ComputeLeased(call, std::move(gathered));
}

void CachedAnswers::Take(const std::shared_ptr<Call>& call, int record, int output, LabelCache::Outcome outcome) {
  if (auto* label = std::get_if<LabelCache::Label>(&outcome)) return Place(call, record, output, std::move(*label));
  if (auto* status = std::get_if<absl::Status>(&outcome)) return call->End(std::move(*status));
  std::vector<Leased> leased;
  leased.push_back({record, output, std::get<LabelCache::Lease>(std::move(outcome))});
  bool wanted = false;
  {
    MutexLock lock(&call->mutex);
    if (call->gathers) return call->gathered.push_back(std::move(leased.front()));
    wanted = !call->ended;
  }
  if (wanted) ComputeLeased(call, std::move(leased));  // else it is given up
}

void CachedAnswers::ComputeLeased(const std::shared_ptr<Call>& call, std::vector<Leased> leased) {
  v1::LabelRequest request;
  *request.mutable_spec() = call->request.spec();
  request.set_priority(call->request.priority());
  std::map<int, size_t> places;
  for (Leased& one : leased) {
    const auto [place, added] = places.try_emplace(one.record, places.size());
    if (added) *request.add_inputs() = call->request.inputs(one.record);
    one.place = place->second;
  }
  const auto asked = std::make_shared<const v1::LabelRequest>(request);
  const auto shared = std::make_shared<std::vector<Leased>>(std::move(leased));  // a std::function is copied
  const absl::Status refused = compute_(
      std::move(request), call->requester,
      [this, call, asked, shared](absl::StatusOr<Answer> answer) { Finish(call, *asked, std::move(*shared), answer); });
  if (!refused.ok()) Finish(call, *asked, std::move(*shared), refused);
}

void CachedAnswers::Finish(const std::shared_ptr<Call>& call, const v1::LabelRequest& request,
                           std::vector<Leased> leased, const absl::StatusOr<Answer>& answer) {
  const absl::StatusOr<LabelParts> parts = answer.ok() ? parts_.cut(request, *answer) : answer.status();
  if (!parts.ok()) call->End(parts.status());
  const auto label_of = [&](const Leased& one) { return (*parts)[one.place][static_cast<size_t>(one.output)]; };
  // First the request itself: the cache writes to the disk.
  for (const Leased& one : leased) {
    if (parts.ok()) Place(call, one.record, one.output, label_of(one));
  }
  // What went wrong with several records may be about another one: then those who wait for one of them get its lease.
  const bool is_theirs = request.inputs_size() == 1 || absl::IsResourceExhausted(parts.status());
  for (Leased& one : leased) {
    if (parts.ok()) std::move(one.lease).Answer(label_of(one));
    if (!parts.ok() && is_theirs) std::move(one.lease).Answer(parts.status());
  }
}

void CachedAnswers::Place(const std::shared_ptr<Call>& call, int record, int output, LabelCache::Label label) {
  LabelParts whole;
  {
    MutexLock lock(&call->mutex);
    call->parts[static_cast<size_t>(record)][static_cast<size_t>(output)] = std::move(label);
    if (--call->missing > 0 || call->ended) return;
    whole = std::move(call->parts);
  }
  call->End(parts_.join(call->request, whole));
}

}  // namespace polystill::teacher_server
