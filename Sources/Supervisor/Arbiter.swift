// The arbiter's process: one loop that waits, tells `ArbiterCore` what happened and does what it says.

public import Config
import Control
public import Linux
public import Logging
public import Logs
import Reactor
import SystemPackage

/// The parent of all workers: it binds the listeners, keeps workers alive and answers signals. Arbiter+Start.swift makes
/// one, Arbiter+Upgrade.swift is its side of USR2.
public struct Arbiter: ~Copyable {
    let settings: Settings
    let log: Logger
    let logFile: LogFile
    let launch: Launch
    /// Whom workers become.
    let identity: UserIdentity?
    let serviceManager: ServiceManager?
    /// When it is to hear that we are alive.
    var nextPing: Instant?
    let softDescriptorLimit: UInt64
    let signals: SignalDescriptor
    var poller: Poller
    var listeners: ListenerSet
    let segment: Descriptor
    let scoreboard: Scoreboard
    /// Certificates and keys, nil without TLS towards clients.
    var tls: TLSKeeper?
    var pidFile: PidFile?
    /// The files of `--reload`, and when the last change will have settled.
    var watch: FileWatch?
    var reloadAt: Instant?
    /// What whoever started us has left, while there is something between us.
    var origin: SuccessionInheritance?
    /// The arbiter that started us by USR2, for as long as it lives.
    var older: OlderArbiter?
    /// Files of Unix sockets that whoever started us listens on and we do not.
    var filesLeft: [Succession.Listener] = []

    var core: ArbiterCore
    var workers: [Serial: WorkerHandle] = [:]
    /// Those that USR2 has started and that have not been reaped, by pid: at most one of them is pending.
    var successors: [Int32: SuccessorHandle] = [:]
    /// A successor serves at our addresses, and has been told that they are its own.
    var hasHandedOver = false
    /// What has happened and the core has not been told yet.
    var events: [ArbiterCore.Event] = []
    var exitStatus: Int32?

    /// What a token names.
    enum Kind: UInt8 { case signals, worker, successor, origin, files }

    /// Serves until a signal ends it, and returns the exit status: 0 after QUIT, TERM and INT, 3 when it cannot boot, 1
    /// when it fails later. Call it from the main thread, before there is another: signal masks are a thread's.
    public static func run(
        _ settings: Settings, _ launch: Launch, _ identity: UserIdentity?, log: Logger, logFile: LogFile
    ) -> Int32 {
        do throws(StartFailure) {
            guard var arbiter = try start(settings, launch, identity, log, logFile) else { return 0 }
            return arbiter.serve()
        } catch {
            log.critical("cannot start: \(error)")
            launch.origin?.channel.send(.bootFailed("\(error)"))
            logFile.flush()
            return 3
        }
    }

    // MARK: The loop

    private mutating func serve() -> Int32 {
        beginWatching()
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
                case .successor: readSuccessor(Int32(bitPattern: token.slot))
                case .origin: readOrigin()
                case .files: readChanges()
                case nil: break
                }
            }
            reloadWhenDue()
            for taker in orderTakers where !taker.waitingOrders.isEmpty { taker.passWaiting() }
            let now = Instant.now()
            happen(core.wantsHeartbeats(at: now) ? .heartbeats(heartbeats()) : .tick)
            pingServiceManager(at: now)
            logFile.flush()
        }
        closeListeners()
        if let pidFile = pidFile.take() { pidFile.remove() }
        log.info("stopped")
        logFile.flush()
        return exitStatus ?? 1
    }

    /// Until the core's next deadline, rounded up: a moment too early would only be waited out again.
    private func waitMilliseconds() -> Int32 {
        let pause = orderTakers.contains { !$0.waitingOrders.isEmpty } ? Int64(Limits.ordersPauseMilliseconds) : .max
        guard let deadline = [core.nextDeadline, nextPing, reloadAt].compactMap({ $0 }).min() else {
            return pause == .max ? -1 : Int32(clamping: pause)
        }
        let left = deadline.milliseconds(since: .now())
        return Int32(clamping: min(pause, max(0, left + 1)))
    }

    /// Tells the core, does what it says, and goes on with what that made happen.
    mutating func happen(_ event: ArbiterCore.Event) {
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
        case .closeListeners: closeListeners()
        case .reopenLogs: reopenLogs()
        case .reloadTLS: reloadTLS()
        case .renewTicketKey: renewTicketKey()
        case .spawnSuccessor(let generation, let lastSerial): spawnSuccessor(generation, lastSerial)
        case .takeBack: takeBack()
        case .handOver: handOver()
        case .passOn(let order, let speaker): passOn(order, from: speaker)
        case .say(let note): say(note)
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
    private var isDetached: Bool { (settings.daemon || Process.parent == 1) && !Process.hasTerminal }

    /// All children that have ended: several deaths may come as one SIGCHLD, and as pid 1 we inherit strangers.
    private mutating func reap() {
        while let ended = Process.reapAny() {
            if successors[ended.pid] != nil {
                readSuccessor(ended.pid)
                successors[ended.pid] = nil
                happen(.successorEnded(pid: ended.pid, ended.status))
                continue
            }
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

    mutating func say(_ note: Note) {
        log.log(level: Logger.Level(note.level), "\(note.text(router: settings.router.text))")
        tellServiceManager(of: note)
        switch note {
        case .ready:
            origin?.channel.send(.ready)
            // The shell has its prompt back; it is nothing to us any more.
            if let origin, !origin.succession.isUpgrade {
                poller.remove(origin.channel.raw)
                self.origin = nil
            }
        case .cannotBoot(let reason): origin?.channel.send(.bootFailed(reason))
        default: break
        }
    }

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
        let raw = try Socket.packetPair().release()
        let ours = Descriptor(owning: raw.0)
        let theirs = Descriptor(owning: raw.1)
        let channel = try ArbiterChannel(ours)
        var inheritance = Inheritance(
            serial: serial.number, slot: slot, generation: generation, arbiter: Process.pid,
            softDescriptorLimit: softDescriptorLimit, binds: listeners.listeners.map(\.bind), settings: settings,
            identity: identity)
        inheritance.isLater = core.hasEverBeenReady
        // A worker that shares with nobody takes whole crowds of clients at once.
        inheritance.settings.workers =
            core.wanted + (successors.isEmpty && origin?.succession.isUpgrade != true ? 0 : 1)
        scoreboard.claim(slot, serial: serial.number, generation: generation, at: .now())
        do throws(Errno) {
            let pid = try inheritance.spawnWorker(
                title: "tproxy: worker [\(settings.name)]", control: theirs, scoreboard: segment,
                listeners: listeners.listeners.map { $0.descriptor.raw }, tls: tlsParcel)
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
        if case .told(let order) = command { return pass(order, to: handle) }
        let parcel = command == .renewTLS || command == .renewTicketKeys ? tlsParcel : nil
        let sending = handle.tell(command, passing: parcel)
        guard sending != .sent else { return }
        let name = WorkerName(serial: serial, pid: handle.pid)
        switch command {
        case .drain, .drainLast: handle.send(.terminate)
        case .stop: handle.send(.kill)
        case .reload, .reopenLogs, .shareListeners, .renewTLS, .renewTicketKeys, .told: break
        }
        // A closed channel is a worker that is ending: nothing is lost.
        if sending == .full { log.warning("\(name) does not read what it is told (\(command.words.word))") }
    }

    private func reopenLogs() {
        if let identity { Self.provideLogs(settings, identity) }
        logFile.reopen(failuresTo: log)
    }
}

extension Signal {
    /// What the arbiter answers. The others keep their defaults.
    static let handled: [Signal] = [
        .hangUp, .interrupt, .quit, .user1, .user2, .terminate, .child, .terminalInput, .terminalOutput, .windowChanged,
    ]
}
