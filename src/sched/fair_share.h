// Service that each tenant got, in weighted tokens: the virtual token counters of Sheng et al., "Fairness in
// Serving Large Language Models" (OSDI 2024). Of two tenants that both have requests waiting, the one with
// less is served next, so their service differs by no more than a constant whatever either sends. When nobody
// waits, nobody was denied anything: counting begins anew, so that who used an idle machine has no debt when
// a flood comes. A value; never fails.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>

namespace mlxs {

using TenantId = std::uint64_t;

class FairShare {
 public:
  struct Account {
    double service = 0;  // weighted tokens / weight of the tenant
    std::int32_t waiting = 0;
    double weight = 1;        // its share: 2 gets twice as much as 1
    std::uint64_t epoch = 0;  // that `service` counts from
  };

  // A request of the tenant starts to wait. Who comes back from a pause does not bring the service that it
  // did not use meanwhile: its counter is lifted to the least of those who wait.
  void arrive(TenantId tenant, double weight) {
    if (accounts_.size() >= kMostAccounts && !accounts_.contains(tenant)) forget_idle();
    Account& account = current(tenant);
    account.weight = weight;
    ++waiting_;
    if (account.waiting++ == 0) account.service = std::max(account.service, floor(tenant));
  }
  void leave(TenantId tenant) {
    Account& account = current(tenant);
    if (--account.waiting == 0) last_service_ = account.service;
    if (--waiting_ > 0) return;
    ++epoch_;
    last_service_ = 0;
  }
  // tokens: weighted by what they are, prompt or output.
  void charge(TenantId tenant, double tokens) {
    Account& account = current(tenant);
    account.service += tokens / account.weight;
  }

  double service(TenantId tenant) const {
    const auto found = accounts_.find(tenant);
    return found == accounts_.end() || found->second.epoch != epoch_ ? 0 : found->second.service;
  }
  // As service(), if a request of it started to wait now.
  double level(TenantId tenant) const {
    const auto found = accounts_.find(tenant);
    if (found != accounts_.end() && found->second.waiting > 0) return found->second.service;
    return std::max(service(tenant), floor(tenant));
  }
  std::int32_t waiting(TenantId tenant) const {
    const auto found = accounts_.find(tenant);
    return found == accounts_.end() ? 0 : found->second.waiting;
  }
  // The tenant with most requests waiting for its weight, the lowest id of several, and how many for a weight
  // of 1.
  std::pair<TenantId, double> most_waiting() const {
    std::pair<TenantId, double> most{0, 0};
    for (const auto& [tenant, account] : accounts_) {
      const double crowding = account.waiting / account.weight;
      if (crowding > most.second || (crowding == most.second && tenant < most.first))
        most = {tenant, crowding};
    }
    return most;
  }
  std::size_t num_accounts() const { return accounts_.size(); }

 private:
  static constexpr std::size_t kMostAccounts = 4096;

  Account& current(TenantId tenant) {
    Account& account = accounts_[tenant];
    if (account.epoch != epoch_) account.service = 0;
    account.epoch = epoch_;
    return account;
  }
  // What a tenant that starts to wait has at least: the least of the others that wait, or of the last that
  // did.
  double floor(TenantId except) const {
    bool anybody = false;
    double least = 0;
    for (const auto& [tenant, account] : accounts_) {
      if (account.waiting == 0 || tenant == except) continue;
      least = anybody ? std::min(least, account.service) : account.service;
      anybody = true;
    }
    return anybody ? least : last_service_;
  }
  // Names come from clients: their number must not grow for ever. An idle tenant loses at most what it used
  // too much.
  void forget_idle() {
    std::erase_if(accounts_, [](const auto& entry) { return entry.second.waiting == 0; });
  }

  std::unordered_map<TenantId, Account> accounts_;
  double last_service_ = 0;
  std::int64_t waiting_ = 0;
  std::uint64_t epoch_ = 1;  // one more whenever nobody waits any more
};

}  // namespace mlxs
