// What a tproxy was told to do: every value checked, nothing left to parse. Made once, from the command line and the
// environment, before anything is bound; kept by the arbiter and handed, as text, to every worker.

public import Addressing

/// How a router is started.
public struct RouterSpec: Sendable, Equatable {
    /// The program (searched in PATH when it has no slash) and its arguments. Never empty.
    public var arguments: [String]
    /// How people know it: the command or the script as they wrote it. For messages and titles.
    public var text: String

    public init(arguments: [String], text: String) {
        self.arguments = arguments
        self.text = text
    }
}

/// The least important message that is still written.
public enum LogLevel: String, Sendable, Equatable, CaseIterable {
    case debug, info, warning, error, critical
}

/// All options as values. Flat, so that it travels as lines of key and value.
public struct Settings: Sendable, Equatable {
    /// The name in process titles (`-n`).
    public var name: String
    /// Where to listen, in the order given (`-b`). Never empty.
    public var binds: [BindAddress] = [.standard]
    public var backlog = Limits.backlogDefault
    public var workers = Limits.workersDefault
    /// Connections that one worker has at once; beyond that it stops accepting.
    public var workerConnections = Limits.workerConnectionsDefault
    /// A worker whose heartbeat is older than this is killed and replaced (`-t`). 0: never.
    public var workerTimeoutMilliseconds = Limits.workerTimeoutMillisecondsDefault
    public var router: RouterSpec
    public var maxInitialBytes = Limits.initialBytesDefault
    /// From accept to verdict, all questions together.
    public var verdictTimeoutMilliseconds = Limits.verdictTimeoutMillisecondsDefault
    /// One question.
    public var routerTimeoutMilliseconds = Limits.routerTimeoutMillisecondsDefault
    /// One remote, unless the verdict has its own.
    public var connectTimeoutMilliseconds = Limits.connectTimeoutMillisecondsDefault
    /// What TERM and INT leave to open connections. 0: nothing.
    public var gracefulTimeoutMilliseconds = Limits.gracefulTimeoutMillisecondsDefault
    /// The client's silence after which a router that wants to know is told.
    public var silenceMilliseconds = Limits.silenceMillisecondsDefault
    /// Where a connection goes that no verdict was found for: no router, deadline, overload, router error.
    public var fallback: Endpoint?
    /// A path, or `-` for standard error.
    public var logFile = Settings.standardError
    public var logLevel = LogLevel.info
    /// A path, `-` for standard error, nil for none.
    public var accessLog: String?

    /// How a log's path says standard error.
    public static let standardError = "-"

    public init(name: String, router: RouterSpec) {
        self.name = name
        self.router = router
    }

    /// The longest line that a question can be; told to routers in `hello`.
    public var questionBytesMax: Int { 6 * maxInitialBytes + Limits.questionOverheadBytes }
}
