#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "soft_labels/backoff.h"
#include "soft_labels/name_lookup.h"

namespace polystill::soft_labels {

// Which replicas a client has: the addresses that it was given and, in place of one whose host is a name, every address
// behind that name, as of a headless Kubernetes service. Knows neither a clock nor a resolver.
//
//   Set --> Step: look_up --> (somebody asks a resolver) --> Found --> replicas()
//             ^                                                |
//             +------- a while later, again and again ---------+
//
// - An address that comes with a server's name is one server, and is left to gRPC; so is a numeric one.
// - Of a name with addresses of both families those of IPv4 count alone: they are the same servers once more, and a
//   server that listens on 0.0.0.0 has no other.
// - Of more than ReplicaRing::kMost addresses the client has its share of the ring.
// - What was found last stays while the name cannot be looked up, or has no address.
// Not thread-safe.
class ReplicaRoster {
 public:
  struct Options {
    // Pauses from one lookup to the next: while a replica answers, and while none does, then growing, since everybody
    // asks.
    BackoffOptions every = {.first_ms = 10'000, .max_ms = 10'000};
    BackoffOptions without_replica = {.first_ms = 1'000, .max_ms = 10'000};
  };
  // In one order: host:port, and the servers' names, empty where there is none.
  struct Replicas {
    std::vector<std::string> addresses;
    std::vector<std::string> server_ids;
  };
  struct LookUp {
    std::string address;  // as it was given
    std::string host;
  };
  struct Actions {
    std::vector<LookUp> look_up;
    int64_t next_ms;  // when Step has something to do again if nothing else happens
  };

  // `client`: by which shares of the ring and pauses are drawn.
  ReplicaRoster(std::string client, Options options);

  // What was given is this from now on. What was found of a name stays.
  void Set(const Replicas& given);
  // What a lookup of a given address has brought. What people should know of it; empty: nothing is new.
  std::string Found(const std::string& address, const HostAddresses& hosts);
  Actions Step(int64_t now_ms, bool has_replica);

  Replicas replicas() const;
  // Of names without replicas, for messages.
  std::string Troubles() const;

 private:
  struct Name {
    std::string host;
    std::string port;
    std::vector<std::string> addresses = {};  // found last: this client's share
    bool under_way = false;
    bool asked = false;
    int64_t asked_ms = 0;
    int lookups_without_replica = 0;  // in a row
    bool failing = false;             // the last lookup has found nothing
    std::string trouble = "is being looked up";
  };

  int64_t DueMs(const Name& name, bool has_replica) const;

  const std::string client_;
  const Options options_;
  Replicas given_;
  std::map<std::string, Name> names_;  // by the address as it was given
};

}  // namespace polystill::soft_labels
