// How an arbiter comes to be: each step in its order, with the reason for it.

import Addressing
public import Config
import Control
public import Linux
import Logging
import Logs
import Reactor
import SystemPackage
import TLS

extension Arbiter {
    enum StartFailure: Error, CustomStringConvertible {
        case listen(ListenError)
        case pidFile(PidFile.Failure)
        case scoreboard(Scoreboard.Failure)
        case tls(TLSFailure)
        case system(String, Errno)

        var description: String {
            switch self {
            case .listen(let error): error.description
            case .pidFile(let error): error.description
            case .scoreboard(let error): error.description
            case .tls(let error): error.description
            case .system(let what, let error): "\(what): \(error)"
            }
        }
    }

    /// Nil when a signal ended it before it served.
    static func start(
        _ settings: Settings, _ launch: Launch, _ identity: UserIdentity?, _ log: Logger, _ logFile: LogFile
    ) throws(StartFailure) -> Arbiter? {
        let origin = launch.origin
        // First of all: a signal that comes from now on waits until the loop reads it. What whoever started us ignored
        // must not stay ignored: without SIGCHLD workers would vanish unseen.
        Signals.restoreDefaults(Signal.handled)
        Signals.ignore([.brokenPipe])
        let signals = try system("signals") { () throws(Errno) in
            try Signals.block(Signal.handled)
            return try SignalDescriptor(Signal.handled)
        }
        // Before anything is spawned: workers inherit the raised limit, their routers get the old one back.
        let raisedFrom = raiseDescriptorLimit(log)
        ProcessTitle.set("tproxy: master [\(settings.name)]")

        // Before anything is bound: with a key that does not fit there is nothing to serve.
        let ticketKeys = origin?.takeTicketKeys()
        let tls = try keepTLS(settings, ticketKeys?.keys, log)

        // Before the workers, and only here: they share our sockets, so none of their deaths loses a client's SYN.
        let listeners = try bind(settings, launch, identity, log, signals)
        guard let listeners else { return nil }
        let filesLeft = origin?.closeRest() ?? []
        for (index, listener) in listeners.listeners.enumerated() {
            let prefix = settings.speaksTLS(listener: index) ? BindAddress.tlsPrefix : ""
            log.info("listening on \(prefix)\(listener.address)")
        }

        // Before the workers, so that a second tproxy ends before it serves; after the addresses, so that one that
        // cannot have them leaves no trace.
        let pidFile = try claimPidFile(settings)

        let segment = try scoreboard { () throws(Scoreboard.Failure) in try Scoreboard.create() }
        let board = try scoreboard { () throws(Scoreboard.Failure) in try Scoreboard(mapping: segment) }
        let poller = try system("epoll") { () throws(Errno) in
            let poller = try Poller()
            try poller.add(signals.raw, .readable, Token(slot: 0, generation: 0, kind: Kind.signals.rawValue))
            if let origin {
                try poller.add(
                    origin.channel.raw, .readable, Token(slot: 0, generation: 0, kind: Kind.origin.rawValue))
            }
            return poller
        }
        let serviceManager = ServiceManager(environment: Process.environment())
        let isWatched = serviceManager?.watchdogMicroseconds != nil
        let before = origin?.succession
        return Arbiter(
            settings: settings, log: log, logFile: logFile, launch: launch, identity: identity,
            serviceManager: serviceManager, nextPing: isWatched ? .now() : nil,
            softDescriptorLimit: before?.softDescriptorLimit ?? raisedFrom, signals: signals, poller: poller,
            listeners: listeners, segment: segment, scoreboard: board, tls: tls, pidFile: pidFile, origin: origin,
            older: origin.flatMap { $0.succession.isUpgrade ? OlderArbiter($0) : nil }, filesLeft: filesLeft,
            core: ArbiterCore(
                settings: settings, generation: before?.generation ?? 1, lastSerial: Serial(before?.lastSerial ?? 0),
                origin: before.flatMap { $0.isUpgrade ? $0.origin : nil }, ticketKeyDue: ticketKeys?.due))
    }

    /// From here on this process holds keys, and shows nobody but root its memory.
    private static func keepTLS(
        _ settings: Settings, _ ticketKeys: [[UInt8]]?, _ log: Logger
    ) throws(StartFailure) -> TLSKeeper? {
        guard let tls = settings.tls else { return nil }
        try system("hiding keys") { () throws(Errno) in try Process.hideMemory() }
        do throws(TLSFailure) {
            var keeper = try TLSKeeper(tls, ticketKeys: ticketKeys)
            for warning in keeper.takeWarnings() { log.warning("\(warning)") }
            return keeper
        } catch {
            throw .tls(error)
        }
    }

    private static func bind(
        _ settings: Settings, _ launch: Launch, _ identity: UserIdentity?, _ log: Logger,
        _ signals: borrowing SignalDescriptor
    ) throws(StartFailure) -> ListenerSet? {
        do throws(ListenError) {
            return try ListenerSet.bind(
                launch.binds(settings), activated: Set(launch.activated), backlog: settings.backlog,
                owner: identity, passedOn: { launch.origin?.take($0) },
                pause: { reason in
                    log.warning("\(reason); trying again in \(Limits.bindPauseMilliseconds) ms")
                    return !isToldToStop(signals, within: Int64(Limits.bindPauseMilliseconds), log)
                })
        } catch {
            throw .listen(error)
        }
    }

    private static func claimPidFile(_ settings: Settings) throws(StartFailure) -> PidFile? {
        guard let path = settings.pidFile else { return nil }
        do throws(PidFile.Failure) {
            return try PidFile(writing: path)
        } catch {
            throw .pidFile(error)
        }
    }

    /// Waits, and returns early with true when a signal that stops us has come.
    private static func isToldToStop(
        _ signals: borrowing SignalDescriptor, within milliseconds: Int64, _ log: Logger
    ) -> Bool {
        let end = Instant.now().advanced(byMilliseconds: milliseconds)
        while true {
            let left = end.milliseconds(since: .now())
            guard left > 0, signals.waits(withinMilliseconds: Int32(clamping: left)) else { return false }
            switch try? signals.next() {
            case .terminate, .interrupt, .quit:
                log.info("told to stop before all listeners were bound")
                return true
            default: break
            }
        }
    }

    /// Raises the soft limit to the hard one and returns what it was. Workers say when that is not enough for them.
    private static func raiseDescriptorLimit(_ log: Logger) -> UInt64 {
        do throws(Errno) {
            let limits = try Process.descriptorLimits()
            if limits.soft < limits.hard { try Process.setSoftDescriptorLimit(limits.hard) }
            return limits.soft
        } catch {
            log.warning("the limit of descriptors cannot be raised: \(error)")
            return 1024
        }
    }

    private static func system<Result: ~Copyable>(
        _ what: String, _ body: () throws(Errno) -> Result
    ) throws(StartFailure) -> Result {
        do throws(Errno) {
            return try body()
        } catch {
            throw .system(what, error)
        }
    }

    private static func scoreboard<Result: ~Copyable>(
        _ body: () throws(Scoreboard.Failure) -> Result
    ) throws(StartFailure) -> Result {
        do throws(Scoreboard.Failure) {
            return try body()
        } catch {
            throw .scoreboard(error)
        }
    }

    /// Makes the logs, where there are none, so that workers can open them again when they have become somebody else.
    public static func provideLogs(_ settings: Settings, _ identity: UserIdentity) {
        for case let path? in [settings.logFile, settings.accessLog] where path != Settings.standardError {
            identity.provideFile(path)
        }
    }
}
