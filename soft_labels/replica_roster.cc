#include "soft_labels/replica_roster.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/address.h"
#include "runtime/counter_rng.h"
#include "soft_labels/replica_ring.h"

namespace polystill::soft_labels {
namespace {

bool IsV6(const std::string& host) { return absl::StrContains(host, ':'); }

// Of one family, sorted, with the port.
std::vector<std::string> WithPort(std::vector<std::string> hosts, const std::string& port) {
  if (!std::all_of(hosts.begin(), hosts.end(), IsV6)) std::erase_if(hosts, IsV6);
  for (std::string& host : hosts)
    host = IsV6(host) ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
  std::sort(hosts.begin(), hosts.end());
  hosts.erase(std::unique(hosts.begin(), hosts.end()), hosts.end());
  return hosts;
}

// ", came: those of `now` that are not in `before`"; empty without any.
std::string Only(const char* what, const std::vector<std::string>& now, const std::vector<std::string>& before) {
  std::vector<std::string> only;
  std::set_difference(now.begin(), now.end(), before.begin(), before.end(), std::back_inserter(only));
  return only.empty() ? "" : absl::StrCat("; ", what, ": ", absl::StrJoin(only, ", "));
}

}  // namespace

ReplicaRoster::ReplicaRoster(std::string client, Options options) : client_(std::move(client)), options_(options) {}

void ReplicaRoster::Set(const Replicas& given) {
  given_ = given;
  given_.server_ids.resize(given_.addresses.size());
  std::map<std::string, Name> before = std::exchange(names_, {});
  for (size_t i = 0; i < given_.addresses.size(); ++i) {
    const std::string& address = given_.addresses[i];
    const std::string host = HostOf(address);
    if (!given_.server_ids[i].empty() || !IsHostName(host)) continue;
    const auto known = before.find(address);
    names_.emplace(address, known == before.end()
                                ? Name{host, address.substr(std::min(address.size(), host.size() + 1))}
                                : known->second);
  }
}

std::string ReplicaRoster::Found(const std::string& address, const HostAddresses& hosts) {
  const auto found = names_.find(address);
  if (found == names_.end()) return "";
  Name& name = found->second;
  name.under_way = false;
  if (!hosts.ok() || hosts->empty()) {
    name.trouble = hosts.ok() ? "has no address" : absl::StrCat("cannot be looked up: ", hosts.status().message());
    if (std::exchange(name.failing, true)) return "";
    return absl::StrCat("teacher at ", address, ": the name ", name.trouble,
                        name.addresses.empty() ? "" : "; the replicas stay as they are");
  }
  std::vector<std::string> all = WithPort(*hosts, name.port);
  std::vector<std::string> now;
  for (const size_t index : ReplicaRing(all).For(client_)) now.push_back(std::move(all[index]));
  const std::vector<std::string> before = std::exchange(name.addresses, now);
  const bool failed = std::exchange(name.failing, false);
  if (now != before) {
    return absl::StrCat("teacher at ", address, ": its replicas are ", absl::StrJoin(now, ", "),
                        all.size() > now.size() ? absl::StrCat(" for this client, of ", all.size()) : "",
                        Only("came", now, before), Only("left", before, now));
  }
  return failed ? absl::StrCat("teacher at ", address, ": the name is found again, as it was") : "";
}

int64_t ReplicaRoster::DueMs(const Name& name, bool has_replica) const {
  if (!name.asked) return std::numeric_limits<int64_t>::min();
  const uint64_t key = CombineKey(NameWord(client_), name.asked_ms);
  return name.asked_ms + (has_replica ? BackoffMs(options_.every, 0, key)
                                      : BackoffMs(options_.without_replica, name.lookups_without_replica, key));
}

ReplicaRoster::Actions ReplicaRoster::Step(int64_t now_ms, bool has_replica) {
  Actions actions{.look_up = {}, .next_ms = std::numeric_limits<int64_t>::max()};
  for (auto& [address, name] : names_) {
    if (has_replica) name.lookups_without_replica = 0;
    if (name.under_way) continue;
    if (const int64_t due_ms = DueMs(name, has_replica); due_ms > now_ms) {
      actions.next_ms = std::min(actions.next_ms, due_ms);
      continue;
    }
    if (!has_replica && name.asked) ++name.lookups_without_replica;
    name.asked = name.under_way = true;
    name.asked_ms = now_ms;
    actions.look_up.push_back({address, name.host});
  }
  return actions;
}

ReplicaRoster::Replicas ReplicaRoster::replicas() const {
  Replicas replicas;
  const auto add = [&replicas](const std::string& address, const std::string& server_id) {
    replicas.addresses.push_back(address);
    replicas.server_ids.push_back(server_id);
  };
  for (size_t i = 0; i < given_.addresses.size(); ++i) {
    const auto name = names_.find(given_.addresses[i]);
    if (name == names_.end() || !given_.server_ids[i].empty()) {
      add(given_.addresses[i], given_.server_ids[i]);
      continue;
    }
    for (const std::string& address : name->second.addresses) add(address, "");
  }
  return replicas;
}

std::string ReplicaRoster::Troubles() const {
  std::string all;
  for (const auto& [address, name] : names_) {
    if (!name.addresses.empty()) continue;
    absl::StrAppend(&all, all.empty() ? "" : "; ", address, ": the name ", name.trouble);
  }
  return all;
}

}  // namespace polystill::soft_labels
