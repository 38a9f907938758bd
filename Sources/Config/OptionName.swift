// The options of the command line as data: what each is called, here and in the environment, and what it takes. The
// command, its help, the messages and the README's table all come from here.

import Addressing

/// An option of the command line. Its raw value is its long name.
public enum OptionName: String, Sendable, CaseIterable {
    case config
    case router
    case routers
    case reload
    case shadowRouter = "shadow-router"
    case canaryRouter = "canary-router"
    case canary
    case bind
    case backlog
    case sslCertfile = "ssl-certfile"
    case sslKeyfile = "ssl-keyfile"
    case sslCACerts = "ssl-ca-certs"
    case sslCertReqs = "ssl-cert-reqs"
    case sslCiphers = "ssl-ciphers"
    case sslMinVersion = "ssl-min-version"
    case sslALPN = "ssl-alpn"
    case workers
    case workerConnections = "worker-connections"
    case timeout
    case name
    case maxInitialBytes = "max-initial-bytes"
    case verdictTimeout = "verdict-timeout"
    case routerTimeout = "router-timeout"
    case connectTimeout = "connect-timeout"
    case gracefulTimeout = "graceful-timeout"
    case silence
    case fallback
    case fileRoot = "file-root"
    case daemon
    case pid
    case user
    case group
    case umask
    case logFile = "log-file"
    case logLevel = "log-level"
    case logConfig = "log-config"
    case logFormat = "log-format"
    case accessLog = "access-log"

    /// The letter: the classic's, and `-c`.
    public var letter: Character? {
        switch self {
        case .config: "c"
        case .bind: "b"
        case .workers: "w"
        case .timeout: "t"
        case .name: "n"
        case .daemon: "D"
        case .pid: "p"
        case .user: "u"
        case .group: "g"
        case .umask: "m"
        default: nil
        }
    }

    /// Whether the command line takes no value for it; the environment and the file say true or false.
    public var isFlag: Bool { self == .daemon || self == .reload }

    /// Whether it may be given again; the environment has its values with commas between, the file has a list.
    public var isList: Bool { self == .bind || self == .sslCertfile || self == .sslKeyfile }

    /// As people see it: `-w/--workers`.
    public var spelled: String {
        letter.map { "-\($0)/--\(rawValue)" } ?? "--\(rawValue)"
    }

    /// The variable that stands in for it when it is not given.
    public var environment: String {
        "TPROXY_" + String(rawValue.map { $0 == "-" ? "_" : $0 }).uppercased()
    }

    /// What stands for its value in the help.
    public var placeholder: String {
        switch self {
        case .router, .shadowRouter, .canaryRouter: "command"
        case .canary: "percent"
        case .sslCertfile, .sslKeyfile: "path"
        case .sslCertReqs: "number"
        case .sslCiphers: "ciphers"
        case .sslMinVersion: "version"
        case .sslALPN: "protocols"
        case .reload: ""
        case .bind, .fallback: "address"
        case .backlog, .workers, .workerConnections, .routers: "number"
        case .timeout, .verdictTimeout, .routerTimeout, .connectTimeout, .gracefulTimeout: "seconds"
        case .silence: "milliseconds"
        case .name: "name"
        case .fileRoot: "folder"
        case .maxInitialBytes: "bytes"
        case .config, .pid, .logFile, .logConfig, .accessLog, .sslCACerts: "file"
        case .daemon: ""
        case .user: "user"
        case .group: "group"
        case .umask: "mask"
        case .logLevel: "level"
        case .logFormat: "format"
        }
    }

    /// Its default as it would be written, nil when there is none.
    public var standard: String? {
        switch self {
        case .config, .router, .reload, .shadowRouter, .canaryRouter, .fallback, .fileRoot, .daemon, .pid, .user,
            .group, .umask, .logConfig, .accessLog, .sslCertfile, .sslKeyfile, .sslCACerts, .sslCiphers, .sslALPN:
            nil
        case .sslCertReqs: String(CertificateRequirement.none.rawValue)
        case .sslMinVersion: TLSVersion.tls12.rawValue
        case .routers: String(Limits.routersDefault)
        case .canary: "\(Limits.canaryDefault / 100)%"
        case .bind: BindAddress.standard.description
        case .backlog: String(Limits.backlogDefault)
        case .workers: String(Limits.workersDefault)
        case .workerConnections: String(Limits.workerConnectionsDefault)
        case .timeout: Self.seconds(Limits.workerTimeoutMillisecondsDefault)
        case .name: "the script's name"
        case .maxInitialBytes: String(Limits.initialBytesDefault)
        case .verdictTimeout: Self.seconds(Limits.verdictTimeoutMillisecondsDefault)
        case .routerTimeout: Self.seconds(Limits.routerTimeoutMillisecondsDefault)
        case .connectTimeout: Self.seconds(Limits.connectTimeoutMillisecondsDefault)
        case .gracefulTimeout: Self.seconds(Limits.gracefulTimeoutMillisecondsDefault)
        case .silence: String(Limits.silenceMillisecondsDefault)
        case .logFile: Settings.standardError
        case .logLevel: LogLevel.info.rawValue
        case .logFormat: LogFormat.text.rawValue
        }
    }

    /// One sentence for the help.
    public var about: String {
        switch self {
        case .config: "Read options from this TOML file; its keys are the long names."
        case .router:
            "Start this program as the router (it is split like a shell would, and no shell is run), or unix:PATH: connect to one that somebody else runs."
        case .routers:
            "Routers that each worker has beside each other; a question goes to the one with the fewest open."
        case .reload:
            "Replace the routers, as HUP does, when a file of their command changes, or one beside it; for development."
        case .shadowRouter: "Ask this router the same, and only log where its verdicts differ."
        case .canaryRouter: "Let this router decide for a share of the clients; the other one steps in when it fails."
        case .canary: "The share of client addresses that go to the canary; up to two decimals."
        case .bind:
            "Listen here: PORT (on 127.0.0.1), :PORT, HOST, HOST:PORT, [V6]:PORT, unix:PATH[?mode=0600] or fd://N; tls:// before it: with TLS. May be given again."
        case .backlog: "Connections that may wait to be accepted."
        case .sslCertfile:
            "Speak TLS with clients, with this certificate and its chain (PEM), or those of a folder. May be given again: the client's name for us decides, and the first serves all others."
        case .sslKeyfile: "The certificate's key, unless the same file has it; given again in the same order."
        case .sslCACerts: "Those who sign clients' certificates (PEM); needs --ssl-cert-reqs."
        case .sslCertReqs: "A client's certificate: 0 is not asked for, 1 is checked if there is one, 2 is required."
        case .sslCiphers: "Ciphers, in OpenSSL's words; those that are good today unless given."
        case .sslMinVersion: "The oldest version of TLS that is spoken: 1.2 or 1.3."
        case .sslALPN: "Protocols to agree on, the best first: h2,http/1.1."
        case .workers: "Worker processes."
        case .workerConnections: "Connections that a worker has at once; beyond that they wait."
        case .timeout: "Kill and replace a worker that has been stuck for so long; 0 is never."
        case .name: "The name in process titles."
        case .maxInitialBytes: "Bytes that a client may send before its verdict."
        case .verdictTimeout: "From accept to verdict, all questions together."
        case .routerTimeout: "For the answer to one question."
        case .connectTimeout: "For reaching one remote: its name, all its addresses, its TLS."
        case .gracefulTimeout: "What TERM and INT leave to open connections; QUIT has no limit."
        case .silence: "Tell a router that asked for it when a client has said nothing for so long."
        case .fallback: "Where connections go that get no verdict: no router, too late, overload, router error."
        case .fileRoot: "Files that verdicts name by path are below this folder, and none outside can be sent."
        case .daemon: "Go to the background once the workers are ready; a start that fails is told before."
        case .pid: "Write the arbiter's process id here; the file is removed at the end."
        case .user: "Workers and routers run as this user, a name or a number."
        case .group: "Workers and routers run as this group, a name or a number."
        case .umask: "Permissions that files made from now on do not get, in octal: 022."
        case .logFile: "The log; - is standard error."
        case .logLevel: "The least important message to write: debug, info, warning, error or critical."
        case .logConfig: "Levels for single components, in a file of lines like router = debug."
        case .logFormat: "text for people, with colour on a terminal, or json for machines."
        case .accessLog: "One line for each connection; - is standard error. Off unless given."
        }
    }

    private static func seconds(_ milliseconds: Int) -> String {
        let (whole, rest) = milliseconds.quotientAndRemainder(dividingBy: 1000)
        return rest == 0 ? String(whole) : "\(whole).\(rest)"
    }
}

/// An option that users of the classic or readers of its manual know and that this version does not have: refused by name,
/// for an option that is ignored (`--user`) can be worse than an error.
public enum AbsentOption: String, Sendable, CaseIterable {
    case admin

    public var spelled: String { "--\(rawValue)" }

    /// What is said of it: `--ssl-keyfile is refused: …`.
    public var reason: String {
        switch self {
        case .admin: "is not available in this version"
        }
    }

    public var environment: String {
        "TPROXY_" + String(rawValue.map { $0 == "-" ? "_" : $0 }).uppercased()
    }
}
