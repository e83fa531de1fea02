#pragma once

#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "tests/simulation/world.h"

namespace polystill::simulation {

// One direction of a stream: what is sent arrives in order, each after a delay of its own, or is lost with the rest.
class Channel : public std::enable_shared_from_this<Channel> {
 public:
  Channel(World* world, std::function<bool()> blocked) : world_(world), blocked_(std::move(blocked)) {}
  void Send(Deed arrive);
  // Some of what is on its way arrives nevertheless, later than the news that the stream is broken.
  void Cut();

 private:
  void Await();

  World* const world_;
  const std::function<bool()> blocked_;
  std::deque<std::pair<Instant, Deed>> under_way_;
  bool awaited_ = false;
  bool cut_ = false;
};

// A stream that `client` has opened to `server`.
struct Link {
  coordinator::StreamId id = 0;
  Process* client = nullptr;
  int client_life = 0;
  Process* server = nullptr;
  int server_life = 0;
  std::shared_ptr<Channel> up, down;
  bool client_open = true;
  bool server_open = true;
  Deed tell_client;
  Deed tell_server;

  void SendUp(Deed arrive) {
    if (client_open) up->Send([this, arrive = std::move(arrive)] { server->Do(server_life, arrive); });
  }
  void SendDown(Deed arrive) {
    if (server_open) down->Send([this, arrive = std::move(arrive)] { client->Do(client_life, arrive); });
  }
};

// Streams between processes, and which processes cannot reach each other.
class Network {
 public:
  explicit Network(World* world) : world_(world) {}

  // `tell_client`, `tell_server`: called in that process when it sees that the stream has ended by the other's doing.
  Link* Open(Process* client, Process* server, Deed tell_client, Deed tell_server);
  // One side ends it, in order: the other hears of it after all that was sent.
  void Close(Link* link, const Process* by);
  // The connection is lost. `silently`: the server sees nothing of it.
  void Break(Link* link, bool silently);
  // Those of a process that died.
  void Bury(const Process* process);
  // Streams with both ends open.
  std::vector<Link*> links() const;

  bool Blocked(const Process* a, const Process* b) const;
  void Part(const Process* a, const Process* b, Millis time);

 private:
  void TellLater(Link* link, bool client, Millis delay);

  World* const world_;
  std::vector<std::unique_ptr<Link>> links_;
  std::map<std::pair<const Process*, const Process*>, Instant> parted_;
};

}  // namespace polystill::simulation
