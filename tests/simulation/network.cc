#include "tests/simulation/network.h"

#include <algorithm>

namespace polystill::simulation {
namespace {

std::pair<const Process*, const Process*> Pair(const Process* a, const Process* b) {
  // By name: addresses differ from run to run.
  return a->name() < b->name() ? std::pair(a, b) : std::pair(b, a);
}

}  // namespace

void Channel::Send(Deed arrive) {
  if (cut_) return;
  const Millis delay = world_->Chance(5) ? world_->Time(20, 400) : world_->Time(0, 8);
  const Instant soonest = under_way_.empty() ? world_->now() : under_way_.back().first;
  under_way_.emplace_back(std::max(soonest, world_->now() + delay), std::move(arrive));
  Await();
}

void Channel::Cut() {
  cut_ = true;
  under_way_.resize(static_cast<size_t>(world_->Draw(0, static_cast<int64_t>(under_way_.size()))));
}

void Channel::Await() {
  if (awaited_ || under_way_.empty()) return;
  awaited_ = true;
  const auto wait = std::max(under_way_.front().first - world_->now(), Instant::duration(0));
  const Millis delay = blocked_() ? Millis(100) : std::chrono::ceil<Millis>(wait);
  world_->After(delay, [self = shared_from_this()] {
    self->awaited_ = false;
    if (self->under_way_.empty()) return;
    if (self->under_way_.front().first <= self->world_->now() && !self->blocked_()) {
      const Deed arrive = std::move(self->under_way_.front().second);
      self->under_way_.pop_front();
      arrive();
    }
    self->Await();
  });
}

Link* Network::Open(Process* client, Process* server, Deed tell_client, Deed tell_server) {
  links_.push_back(std::make_unique<Link>());
  Link* link = links_.back().get();
  link->id = static_cast<coordinator::StreamId>(links_.size());
  link->client = client;
  link->client_life = client->life();
  link->server = server;
  link->server_life = server->life();
  const auto blocked = [this, client, server] { return Blocked(client, server); };
  link->up = std::make_shared<Channel>(world_, blocked);
  link->down = std::make_shared<Channel>(world_, blocked);
  link->tell_client = std::move(tell_client);
  link->tell_server = std::move(tell_server);
  return link;
}

void Network::TellLater(Link* link, bool client, Millis delay) {
  world_->After(delay, [link, client] {
    Process* process = client ? link->client : link->server;
    process->Do(client ? link->client_life : link->server_life, [link, client] {
      if (!std::exchange(client ? link->client_open : link->server_open, false)) return;
      (client ? link->tell_client : link->tell_server)();
    });
  });
}

void Network::Close(Link* link, const Process* by) {
  const bool client = by == link->client;
  bool& other = client ? link->server_open : link->client_open;
  (client ? link->client_open : link->server_open) = false;
  if (!other) return;
  (client ? link->up : link->down)->Send([this, link, client] { TellLater(link, !client, Millis(0)); });
}

void Network::Break(Link* link, bool silently) {
  link->up->Cut();
  link->down->Cut();
  TellLater(link, true, world_->Time(0, 50));
  if (!silently) TellLater(link, false, world_->Time(0, 50));
}

void Network::Bury(const Process* process) {
  for (const auto& link : links_) {
    const bool of_client = link->client == process && link->client_life == process->life() && link->client_open;
    const bool of_server = link->server == process && link->server_life == process->life() && link->server_open;
    if (!of_client && !of_server) continue;
    (of_client ? link->client_open : link->server_open) = false;
    // Now and then a whole machine dies, and nothing is heard of it.
    Break(link.get(), of_client && world_->Chance(20));
  }
}

std::vector<Link*> Network::links() const {
  std::vector<Link*> open;
  for (const auto& link : links_) {
    if (link->client_open && link->server_open) open.push_back(link.get());
  }
  return open;
}

bool Network::Blocked(const Process* a, const Process* b) const {
  const auto found = parted_.find(Pair(a, b));
  return found != parted_.end() && world_->now() < found->second;
}

void Network::Part(const Process* a, const Process* b, Millis time) {
  Instant& until = parted_[Pair(a, b)];
  until = std::max(until, world_->now() + time);
}

}  // namespace polystill::simulation
