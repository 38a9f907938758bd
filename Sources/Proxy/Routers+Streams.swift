// What `Routers` has to know of rewriting: a router that has streams is not sent away for a newer one.

extension Routers {
    /// A router has been told of a stream.
    mutating func streamBegan(_ router: RouterID) {
        guard let position = position(of: router) else { return }
        lives[position].streams += 1
    }

    /// So many of its streams are over. With the last one a router that was replaced may go.
    mutating func streamsEnded(_ router: RouterID, count: Int = 1, now: Int64) {
        guard let position = position(of: router) else { return }
        lives[position].streams = max(0, lives[position].streams - count)
        if lives[position].streams == 0, lives[position].phase == .retiring { settle(now) }
    }

    /// Whether a router may be told of new streams: it is there and has not been told to go.
    func takesStreams(_ router: RouterID) -> Bool {
        guard let position = position(of: router) else { return false }
        switch lives[position].phase {
        case .deciding, .standingBy, .retiring: return true
        case .starting, .leaving: return false
        }
    }
}
