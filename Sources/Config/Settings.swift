// What a tproxy was told to do: every value checked, nothing left to parse. Made once, from the command line and the
// environment, before anything is bound; kept by the arbiter and handed, as text, to every worker.

public import Addressing

/// How a router is started, or where it is.
public struct RouterSpec: Sendable, Equatable {
    /// The program (searched in PATH when it has no slash) and its arguments. Empty for a router behind a socket.
    public var arguments: [String]
    /// How people know it: the command or the script as they wrote it. For messages and titles.
    public var text: String

    public init(arguments: [String], text: String) {
        self.arguments = arguments
        self.text = text
    }

    /// Reads what `--router` takes: a command, or `unix:PATH`.
    public init(command text: String) throws(ShellWordsError) {
        let isSocket = Self.path(in: text) != nil
        self.init(arguments: isSocket ? [] : try ShellWords.split(text), text: text)
    }

    /// Where a router that somebody else runs can be reached.
    public var socketPath: String? { arguments.isEmpty ? Self.path(in: text) : nil }

    private static func path(in text: String) -> String? {
        text.hasPrefix("unix:") ? String(text.dropFirst("unix:".count)) : nil
    }
}

/// The least important message that is still written.
public enum LogLevel: String, Sendable, Equatable, CaseIterable {
    case debug, info, warning, error, critical
}

/// How log lines look.
public enum LogFormat: String, Sendable, Equatable, CaseIterable {
    /// For people, with colour on a terminal.
    case text
    /// For machines: one JSON object a line.
    case json
}

/// A part of tproxy that has a level of its own in the log (`--log-config`).
public enum LogComponent: String, Sendable, Hashable, CaseIterable {
    /// The first process.
    case arbiter
    /// The processes that serve.
    case worker
    /// What goes wrong with single connections.
    case connection
    /// Routers: their starts and ends, what they answer wrongly, and their standard error.
    case router
    /// The access log; its lines have the level info.
    case access
}

/// All options as values. Flat, so that it travels as lines of key and value.
public struct Settings: Sendable, Equatable {
    /// The name in process titles (`-n`).
    public var name: String
    /// Where to listen, in the order given (`-b`). Never empty.
    public var binds: [BindAddress] = [.standard]
    /// Whether somebody said so: then sockets that the service manager passes are added, else they replace `binds`.
    public var hasExplicitBinds = false
    /// Those of them with `tls://`, by their places in `binds`.
    public var tlsBinds: [Int] = []
    /// TLS towards clients (`--ssl-certfile` and what goes with it), nil for none.
    public var tls: TLSSettings?
    public var backlog = Limits.backlogDefault
    public var workers = Limits.workersDefault
    /// Connections that one worker has at once; beyond that it stops accepting.
    public var workerConnections = Limits.workerConnectionsDefault
    /// A worker whose heartbeat is older than this is killed and replaced (`-t`). 0: never.
    public var workerTimeoutMilliseconds = Limits.workerTimeoutMillisecondsDefault
    public var router: RouterSpec
    /// Routers that one worker has beside each other.
    public var routers = Limits.routersDefault
    /// Whether routers are replaced when their files change.
    public var reload = false
    /// A router that is asked the same, and whose answers are only compared.
    public var shadowRouter: RouterSpec?
    /// A router that decides for a share of the clients, and the share in hundredths of a percent.
    public var canaryRouter: RouterSpec?
    public var canary = Limits.canaryDefault
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
    /// The folder that files of verdicts are in; nil: anywhere.
    public var fileRoot: String?
    /// Whether to go to the background (`-D`).
    public var daemon = false
    /// Where the arbiter's process id is written (`-p`).
    public var pidFile: String?
    /// Whom workers run as (`-u`): a name, or a number in decimal. Looked up when listeners are bound.
    public var user: String?
    /// The same for the group (`-g`).
    public var group: String?
    /// The mask of new files (`-m`), nil to keep the one that tproxy was started with.
    public var umask: Int?
    /// A path, or `-` for standard error.
    public var logFile = Settings.standardError
    /// The level of every component that has none of its own.
    public var logLevel = LogLevel.info
    /// The components that `--log-config` names.
    public var logLevels: [LogComponent: LogLevel] = [:]
    public var logFormat = LogFormat.text
    /// A path, `-` for standard error, nil for none. Nil, too, when `--log-config` wants more than info for `access`.
    public var accessLog: String?

    /// How a log's path says standard error.
    public static let standardError = "-"

    public init(name: String, router: RouterSpec) {
        self.name = name
        self.router = router
    }

    /// The least important message that a component writes.
    public func logLevel(of component: LogComponent) -> LogLevel { logLevels[component] ?? logLevel }

    /// Takes the levels of `--log-config`. An access line has the level info: a higher one turns the access log off.
    public mutating func setLogLevels(_ levels: [LogComponent: LogLevel]) {
        logLevels = levels
        switch levels[.access] {
        case nil, .debug, .info: break
        case .warning, .error, .critical: accessLog = nil
        }
    }

    /// Whether clients speak TLS to a listener, by its place among all: those of `binds`, then those that a service manager has
    /// opened. With certificates and without any `tls://` it is every one, as in the classic.
    public func speaksTLS(listener: Int) -> Bool { tls != nil && (tlsBinds.isEmpty || tlsBinds.contains(listener)) }

    /// The longest line that a question can be; told to routers in `hello`.
    public var questionBytesMax: Int { 6 * maxInitialBytes + Limits.questionOverheadBytes }
}
