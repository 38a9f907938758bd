// The arbiter's process: one loop that waits, tells `ArbiterCore` what happened and does what it says.

public import Config
import Control
import Linux
public import Logging
public import Logs
import Reactor
import SystemPackage

/// The parent of all workers: it binds the listeners, keeps workers alive and answers signals.
public struct Arbiter: ~Copyable {
    private let settings: Settings
    private let log: Logger
    private let logFile: LogFile
    private let softDescriptorLimit: UInt64
    private let signals: SignalDescriptor
    private var poller: Poller
    private var listeners: ListenerSet
    private let segment: Descriptor
    private let scoreboard: Scoreboard

    private var core: ArbiterCore
    private var workers: [Serial: WorkerHandle] = [:]
    /// What has happened and the core has not been told yet.
    private var events: [ArbiterCore.Event] = []
    private var exitStatus: Int32?

    /// What a token names.
    private enum Kind: UInt8 { case signals, worker }

    /// Serves until a signal ends it, and returns the exit status: 0 after QUIT, TERM and INT, 3 when it cannot boot, 1
    /// when it fails later. Call it from the main thread, before there is another: signal masks are a thread's.
    public static func run(_ settings: Settings, log: Logger, logFile: LogFile) -> Int32 {
        do throws(StartFailure) {
            guard var arbiter = try start(settings, log, logFile) else { return 0 }
            return arbiter.serve()
        } catch {
            log.critical("cannot start: \(error)")
            logFile.flush()
            return 3
        }
    }

    private enum StartFailure: Error, CustomStringConvertible {
        case listen(ListenError)
        case scoreboard(Scoreboard.Failure)
        case system(String, Errno)

        var description: String {
            switch self {
            case .listen(let error): error.description
            case .scoreboard(let error): error.description
            case .system(let what, let error): "\(what): \(error)"
            }
        }
    }

    // MARK: Start

    /// Nil when a signal ended it before it served.
    private static func start(
        _ settings: Settings, _ log: Logger, _ logFile: LogFile
    ) throws(StartFailure) -> Arbiter? {
        // First of all: a signal that comes from now on waits until the loop reads it. What whoever started us ignored
        // must not stay ignored: without SIGCHLD workers would vanish unseen.
        Signals.restoreDefaults(Signal.handled)
        Signals.ignore([.brokenPipe])
        let signals = try system("signals") { () throws(Errno) in
            try Signals.block(Signal.handled)
            return try SignalDescriptor(Signal.handled)
        }
        // Before anything is spawned: workers inherit the raised limit, their routers get the old one back.
        let softDescriptorLimit = raiseDescriptorLimit(log)
        ProcessTitle.set("tproxy: master [\(settings.name)]")

        // Before the workers, and only here: they share our sockets, so none of their deaths loses a client's SYN.
        let listeners = try bind(settings, log, signals)
        guard let listeners else { return nil }
        for listener in listeners.listeners { log.info("listening on \(listener.address)") }

        let segment = try scoreboard { () throws(Scoreboard.Failure) in try Scoreboard.create() }
        let board = try scoreboard { () throws(Scoreboard.Failure) in try Scoreboard(mapping: segment) }
        let poller = try system("epoll") { () throws(Errno) in
            let poller = try Poller()
            try poller.add(signals.raw, .readable, Token(slot: 0, generation: 0, kind: Kind.signals.rawValue))
            return poller
        }

        return Arbiter(
            settings: settings, log: log, logFile: logFile, softDescriptorLimit: softDescriptorLimit, signals: signals,
            poller: poller, listeners: listeners, segment: segment, scoreboard: board,
            core: ArbiterCore(settings: settings))
    }

    private static func bind(
        _ settings: Settings, _ log: Logger, _ signals: borrowing SignalDescriptor
    ) throws(StartFailure) -> ListenerSet? {
        do throws(ListenError) {
            return try ListenerSet.bind(settings.binds, backlog: settings.backlog) { reason in
                log.warning("\(reason); trying again in \(Limits.bindPauseMilliseconds) ms")
                return !isToldToStop(signals, within: Int64(Limits.bindPauseMilliseconds), log)
            }
        } catch {
            throw .listen(error)
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

    // MARK: The loop

    private mutating func serve() -> Int32 {
        happen(.start)
        while exitStatus == nil {
            let count: Int
            do throws(Errno) {
                count = try poller.wait(timeoutMilliseconds: waitMilliseconds())
            } catch {
                // Workers see our end and drain by themselves.
                log.critical("the arbiter's epoll failed: \(error)")
                exitStatus = 1
                break
            }
            for index in 0..<count {
                let token = poller.event(index).token
                switch Kind(rawValue: token.kind) {
                case .signals: readSignals()
                case .worker: readReports(token)
                case nil: break
                }
            }
            let now = Instant.now()
            happen(core.wantsHeartbeats(at: now) ? .heartbeats(heartbeats()) : .tick)
            logFile.flush()
        }
        listeners.close()
        log.info("stopped")
        logFile.flush()
        return exitStatus ?? 1
    }

    /// Until the core's next deadline, rounded up: a moment too early would only be waited out again.
    private func waitMilliseconds() -> Int32 {
        guard let deadline = core.nextDeadline else { return -1 }
        let left = deadline.milliseconds(since: .now())
        return Int32(clamping: max(0, left + 1))
    }

    /// Tells the core, does what it says, and goes on with what that made happen.
    private mutating func happen(_ event: ArbiterCore.Event) {
        events.append(event)
        while !events.isEmpty {
            for action in core.handle(events.removeFirst(), at: .now()) { perform(action) }
        }
    }

    private mutating func perform(_ action: ArbiterCore.Action) {
        switch action {
        case .spawn(let serial, let generation): spawn(serial, generation)
        case .tell(let serial, let command): tell(serial, command)
        case .kill(let serial): workers[serial]?.send(.kill)
        case .closeListeners: listeners.close()
        case .reopenLogs: reopenLogs()
        case .say(let note): log.log(level: Logger.Level(note.level), "\(note.text(router: settings.router.text))")
        case .exit(let status): exitStatus = status
        }
    }

    // MARK: What happens

    private mutating func readSignals() {
        while true {
            do throws(Errno) {
                guard let signal = try signals.next() else { return }
                switch signal {
                case .child: reap()
                case .windowChanged where !isDetached: log.debug("WINCH is for daemons; ignored")
                default: happen(.signal(signal))
                }
            } catch {
                log.error("a signal cannot be read: \(error)")
                return
            }
        }
    }

    /// Whether WINCH is meant: a terminal whose window changes sends it, too. In a container the parent of a program in
    /// the foreground may well be pid 1, so what counts is that there is no terminal.
    private var isDetached: Bool { Process.parent == 1 && !Process.hasTerminal }

    /// All children that have ended: several deaths may come as one SIGCHLD, and as pid 1 we inherit strangers.
    private mutating func reap() {
        while let ended = Process.reapAny() {
            guard let handle = workers.values.first(where: { $0.pid == ended.pid }) else { continue }
            // Its last words first: they say why.
            receive(from: handle)
            workers[handle.serial] = nil
            scoreboard.free(handle.slot)
            happen(.ended(handle.serial, ended.status))
        }
    }

    private mutating func readReports(_ token: Token) {
        guard let handle = workers.values.first(where: { UInt32(truncatingIfNeeded: $0.serial.number) == token.slot })
        else { return }
        receive(from: handle)
    }

    private mutating func receive(from handle: WorkerHandle) {
        while true {
            switch handle.channel.receive() {
            case .message(let report): happen(.report(handle.serial, report.message))
            case .notUnderstood(let error):
                log.error("\(WorkerName(serial: handle.serial, pid: handle.pid)) sent \(error); dropped")
            case .wouldBlock: return
            case .closed:
                // It is about to end: SIGCHLD follows. Until then the end would be reported over and over.
                poller.remove(handle.channel.raw)
                return
            }
        }
    }

    private func heartbeats() -> [Serial: Instant] {
        workers.compactMapValues { handle in
            scoreboard.slot(handle.slot).map { Instant(nanoseconds: $0[.heartbeat]) }
        }
    }

    // MARK: What is done

    private mutating func spawn(_ serial: Serial, _ generation: UInt64) {
        do throws(Errno) {
            let handle = try start(serial, generation)
            workers[serial] = handle
            let token = Token(
                slot: UInt32(truncatingIfNeeded: serial.number), generation: 0, kind: Kind.worker.rawValue)
            events.append(.spawned(serial, pid: handle.pid))
            try poller.add(handle.channel.raw, .readable, token)
        } catch {
            if let handle = workers[serial] {
                // It runs, but we would not hear it.
                handle.send(.kill)
                log.error("\(WorkerName(serial: serial, pid: handle.pid)) cannot be watched: \(error); killing it")
            } else {
                events.append(.spawnFailed(serial, "a worker cannot be started: \(error)"))
            }
        }
    }

    private func start(_ serial: Serial, _ generation: UInt64) throws(Errno) -> WorkerHandle {
        guard let slot = scoreboard.freeSlot() else { throw .noSpace }
        var raw: (Int32, Int32) = (-1, -1)
        try Socket.packetPair().take { ours, theirs in raw = (ours.release(), theirs.release()) }
        let ours = Descriptor(owning: raw.0)
        let theirs = Descriptor(owning: raw.1)
        let channel = try ArbiterChannel(ours)
        var inheritance = Inheritance(
            serial: serial.number, slot: slot, generation: generation, arbiter: Process.pid,
            softDescriptorLimit: softDescriptorLimit, binds: listeners.listeners.map(\.bind), settings: settings)
        inheritance.settings.workers = core.wanted
        scoreboard.claim(slot, serial: serial.number, generation: generation, at: .now())
        do throws(Errno) {
            let pid = try inheritance.spawnWorker(
                title: "tproxy: worker [\(settings.name)]", control: theirs, scoreboard: segment,
                listeners: listeners.listeners.map { $0.descriptor.raw })
            scoreboard.slot(slot)?[.pid] = UInt64(clamping: pid)
            return WorkerHandle(serial: serial, pid: pid, slot: slot, channel: channel)
        } catch {
            scoreboard.free(slot)
            throw error
        }
    }

    /// A worker that cannot be told is ended in the way that needs no channel.
    private func tell(_ serial: Serial, _ command: Command) {
        guard let handle = workers[serial] else { return }
        let sending = handle.tell(command)
        guard sending != .sent else { return }
        let name = WorkerName(serial: serial, pid: handle.pid)
        switch command {
        case .drain: handle.send(.terminate)
        case .stop: handle.send(.kill)
        case .reload, .reopenLogs, .shareListeners: break
        }
        // A closed channel is a worker that is ending: nothing is lost.
        if sending == .full { log.warning("\(name) does not read what it is told (\(command.words.word))") }
    }

    private func reopenLogs() {
        do throws(Errno) {
            try logFile.reopen()
        } catch {
            log.error("the log \(settings.logFile) cannot be opened again: \(error); writing on to the old one")
        }
    }
}

extension Signal {
    /// What the arbiter answers. The others keep their defaults.
    fileprivate static let handled: [Signal] = [
        .hangUp, .interrupt, .quit, .user1, .user2, .terminate, .child, .terminalInput, .terminalOutput, .windowChanged,
    ]
}
