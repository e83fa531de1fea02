#include "runtime/metrics.h"

#include <netdb.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <future>

#include "absl/strings/str_cat.h"
#include "runtime/address.h"

namespace polystill {
namespace {

// What `call` gives for a socket and the first address of host:port; a failure of getaddrinfo is told by `unknown`.
template <typename Call>
int WithSocket(const std::string& host, const std::string& port, Call call, std::string* unknown = nullptr) {
  addrinfo hints = {};
  hints.ai_family = AF_INET;  // Debian's civetweb serves no other
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(std::string(WithoutBrackets(host)).c_str(), port.c_str(), &hints, &found);
  if (failed != 0) {
    if (unknown != nullptr) *unknown = ::gai_strerror(failed);
    return -1;
  }
  const int handle = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int result = handle < 0 ? -1 : call(handle, *found);
  const int error = errno;
  if (handle >= 0) ::close(handle);
  ::freeaddrinfo(found);
  errno = error;
  return result;
}

// Why nobody can listen at host:port; civetweb itself does not say.
std::string WhyNot(const std::string& host, const std::string& port) {
  const auto bind = [](int handle, const addrinfo& address) {
    const int yes = 1;  // as civetweb: a port whose connections have just ended is free
    ::setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    return ::bind(handle, address.ai_addr, address.ai_addrlen) == 0 ? ::listen(handle, 1) : -1;
  };
  std::string unknown;
  if (WithSocket(host, port, bind, &unknown) == 0) {
    return "the port is free, but no thread of the web server could be started: its stacks of 100 KiB must hold the "
           "thread-local data of all libraries, and CUDA's do not fit (is lib/polystill/libtorch.so beside bin/?)";
  }
  if (!unknown.empty()) return unknown;
  if (errno == EADDRINUSE) return "the port is in use; choose another one, or port 0 for any free one";
  return std::strerror(errno);
}

}  // namespace

// civetweb sees that it is to end once its wait for a connection is over, which takes up to two seconds without one.
Metrics::~Metrics() {
  if (exposer_ == nullptr) return;
  const std::string port = std::to_string(exposer_->GetListeningPorts().at(0));
  std::future<void> ended = std::async(std::launch::async, [this] { exposer_.reset(); });
  const auto connect = [](int handle, const addrinfo& to) { return ::connect(handle, to.ai_addr, to.ai_addrlen); };
  while (ended.wait_for(std::chrono::milliseconds(10)) != std::future_status::ready) WithSocket(host_, port, connect);
}

absl::Status Metrics::Listen(const std::string& address, bool insecure) {
  const std::string host(HostOf(address));
  if (host.empty() || host == address) {
    return absl::InvalidArgumentError(absl::StrCat("--metrics ", address, ": write HOST:PORT, e.g. 127.0.0.1:9464"));
  }
  if (!insecure && !IsLoopback(host)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics ", address, " can be reached by others, without TLS; add --insecure if that is meant"));
  }
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address, /*num_threads=*/1);
    exposer_->RegisterCollectable(registry_);
  } catch (const std::exception&) {
    return absl::UnavailableError(
        absl::StrCat("--metrics ", address, ": cannot listen: ", WhyNot(host, address.substr(host.size() + 1))));
  }
  host_ = host;
  spdlog::info("metrics at http://{}:{}/metrics", host, exposer_->GetListeningPorts().at(0));
  return absl::OkStatus();
}

prometheus::Family<prometheus::Counter>& Metrics::AddCounters(const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry_);
}

prometheus::Family<prometheus::Gauge>& Metrics::AddGauges(const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry_);
}

prometheus::Family<prometheus::Histogram>& Metrics::AddHistograms(const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_);
}

prometheus::Histogram::BucketBoundaries SecondsBuckets() {
  prometheus::Histogram::BucketBoundaries bounds;
  for (double decade = 1e-4; decade < 100; decade *= 10) {
    for (const double step : {1.0, 2.5, 5.0}) bounds.push_back(step * decade);
  }
  return bounds;
}

prometheus::Histogram::BucketBoundaries SizeBuckets() {
  prometheus::Histogram::BucketBoundaries bounds;
  for (double bound = 1; bound <= 65536; bound *= 2) bounds.push_back(bound);
  return bounds;
}

}  // namespace polystill
