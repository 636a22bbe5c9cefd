#pragma once

#include <boost/asio/awaitable.hpp>

namespace base::async {

// A coroutine of the edge. Only sockets live in coroutines; everything else is a blocking job on a
// Pool (offload.h). Keep the forms plain: no reference parameters that outlive a suspension, no
// aggregate or capturing lambda built inside a co_await expression, results assigned to a local
// first.
template <typename T>
using Task = boost::asio::awaitable<T>;

}  // namespace base::async
