// The kinds of registrations that a worker's epoll instance holds.

/// What an event of the poller is about.
enum TokenKind {
    /// The slot names a connection.
    static let client: UInt8 = 1
    static let remote: UInt8 = 2
    static let racer: UInt8 = 3
    /// The slot names a router's link.
    static let routerSocket: UInt8 = 4
    static let routerErrors: UInt8 = 5
    static let routerProcess: UInt8 = 6
    /// The slot names a listener.
    static let listener: UInt8 = 7
    /// There is one of each.
    static let control: UInt8 = 8
    static let signals: UInt8 = 9
    static let resolver: UInt8 = 10
    static let streamDoor: UInt8 = 11
    /// The slot names a rewriter that has not said its token.
    static let streamDialer: UInt8 = 12
    /// The slot names a connection: the sockets of its rewriters.
    static let toRemoteRewriter: UInt8 = 13
    static let toClientRewriter: UInt8 = 14
}
