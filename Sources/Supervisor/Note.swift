// What the arbiter says: each decision as a value, with the sentence that goes to the log.

public import Config
public import Linux

/// A worker in a sentence: "worker 3 (pid 812)".
public struct WorkerName: Hashable, Sendable, CustomStringConvertible {
    public let serial: Serial
    public let pid: Int32?

    public init(serial: Serial, pid: Int32?) {
        self.serial = serial
        self.pid = pid
    }

    public var description: String { pid.map { "worker \(serial) (pid \($0))" } ?? "worker \(serial)" }
}

/// Something to be said, with its cause and what is done about it.
public enum Note: Equatable, Sendable {
    /// The first worker serves.
    case ready(workers: Int)
    case workerReady(WorkerName)
    case cannotBoot(String)
    case bootFailed(WorkerName, String, retryMilliseconds: Int64)
    case died(WorkerName, ExitStatus, next: Serial, retryMilliseconds: Int64)
    /// One that was leaving ended in another way than with status 0.
    case left(WorkerName, ExitStatus)
    case drainsByItself(WorkerName)
    case silent(WorkerName, milliseconds: Int64)
    case reloading(generation: UInt64)
    case reloaded(generation: UInt64, workers: Int)
    case reloadFailed(WorkerName, String, reloaded: Int, left: Int)
    /// Without a limit after QUIT.
    case stopping(Signal, withinMilliseconds: Int64?)
    case secondSignal(Signal)
    case outOfTime(workers: Int, afterMilliseconds: Int64)
    case killing(WorkerName)
    case reopeningLogs
    case tlsReloaded
    case tlsReloadFailed(String)
    case tlsNotRenewed(WorkerName, String)
    case logRefused(WorkerName, String)
    /// TTIN, TTOU: so many from now on.
    case workersWanted(Int)
    /// TTIN, TTOU: there are as many or as few as there can be.
    case workersAtLimit(Int)
    case resting
    case upgrading(pid: Int32, path: String)
    case upgradePending(pid: Int32?)
    case successorReady(pid: Int32)
    case upgradeFailed(String)
    case upgradeBackedOut(pid: Int32)
    case successorDied(pid: Int32, ExitStatus)
    /// One whose upgrade was over.
    case successorLeft(pid: Int32, ExitStatus)
    case handingOver(pid: Int32, isReady: Bool)
    /// USR2 to a successor whose own upgrade is open.
    case ownUpgradeOpen(origin: Int32)
    case servesAlone(origin: Int32)
    case ignored(Signal)

    public var level: LogLevel {
        switch self {
        case .ready, .workerReady, .reloading, .reloaded, .stopping, .secondSignal,
            .reopeningLogs, .tlsReloaded, .workersWanted, .resting, .upgrading, .servesAlone, .successorReady,
            .upgradeBackedOut,
            .successorLeft(_, .exited(0)), .handingOver(_, isReady: true):
            .info
        case .drainsByItself, .outOfTime, .ignored, .left, .workersAtLimit,
            .upgradePending, .ownUpgradeOpen, .successorLeft, .handingOver:
            .warning
        case .bootFailed, .died, .silent, .reloadFailed, .tlsReloadFailed, .tlsNotRenewed, .logRefused, .killing,
            .upgradeFailed,
            .successorDied:
            .error
        case .cannotBoot: .critical
        }
    }

    /// The sentence. `router` is the command as people wrote it.
    public func text(router: String) -> String {
        switch self {
        case .ready(let workers): "ready: \(Self.count(workers)), router \(router)"
        case .workerReady(let worker): "\(worker) is ready"
        case .cannotBoot(let reason): "cannot start: \(reason)"
        case .bootFailed(let worker, let reason, let pause):
            "\(worker) cannot start: \(reason); trying again in \(pause) ms"
        case .died(let worker, let status, let next, let pause):
            "\(worker) \(status); starting worker \(next)" + (pause > 0 ? " in \(pause) ms" : "")
        case .left(let worker, let status): "\(worker), told to end, \(status)"
        case .drainsByItself(let worker): "\(worker) drains without being told to by the arbiter; replacing it"
        case .silent(let worker, let milliseconds):
            "\(worker) has given no sign of life for \(Self.seconds(milliseconds)) (--timeout); killing it"
        case .reloading(let generation): "reloading: routers of generation \(generation), one worker after the other"
        case .reloaded(let generation, let workers):
            "reloaded: \(Self.count(workers)) with routers of generation \(generation)"
        case .reloadFailed(let worker, let reason, let reloaded, let left):
            "reload failed in \(worker): \(reason); "
                + (reloaded == 0
                    ? "the old router goes on" : "it goes on with the old router, \(Self.count(reloaded)) with the new")
                + (left == 0 ? "" : ", \(left) more not told")
        case .stopping(let signal, let milliseconds):
            "\(signal): accepting no more and finishing what is open"
                + (milliseconds.map { ", for at most \(Self.seconds($0))" } ?? "")
        case .secondSignal(let signal): "\(signal) again: stopping at once"
        case .outOfTime(let workers, let milliseconds):
            "\(Self.count(workers)) not done after \(Self.seconds(milliseconds)) (--graceful-timeout); closing what is open"
        case .killing(let worker): "\(worker) does not stop; killing it"
        case .reopeningLogs: "opening the logs again"
        case .tlsReloaded: "certificates reloaded: new connections get them"
        case .tlsReloadFailed(let reason): "certificates not reloaded: \(reason); the old ones go on"
        case .logRefused(let worker, let reason): "\(worker): \(reason)"
        case .tlsNotRenewed(let worker, let reason):
            "\(worker) cannot use the new certificates: \(reason); it goes on with the old ones"
        case .workersWanted(let count): "\(Self.count(count)) from now on"
        case .workersAtLimit(let count): "there \(count == 1 ? "is" : "are") \(Self.count(count)), and it stays so"
        case .resting: "WINCH: workers finish what is open and go, clients wait; HUP starts workers again"
        case .ignored(let signal): "\(signal) means nothing while stopping; ignored"
        case .upgrading(let pid, let path): "upgrading: started \(path) (pid \(pid)), which listens beside this one"
        case .upgradePending(let pid):
            "USR2 ignored: an upgrade is under way"
                + (pid.map { "; QUIT to this process completes it, QUIT to process \($0) takes it back" } ?? "")
        case .ownUpgradeOpen(let origin):
            "USR2 ignored: the upgrade to this process is open until process \(origin) is told QUIT"
        case .servesAlone(let origin):
            "upgrade complete: this process serves alone; process \(origin) is gone, or finishes what it has open"
        case .successorReady(let pid):
            "upgrade: process \(pid) is ready; QUIT to this process completes it, QUIT to process \(pid) takes it back"
        case .upgradeFailed(let reason): "upgrade failed: \(reason); this process goes on as before"
        case .upgradeBackedOut(let pid):
            "upgrade taken back: process \(pid) has been told to end; this process goes on as before"
        case .successorDied(let pid, let status):
            "upgrade failed: process \(pid) \(status); this process goes on as before"
        case .successorLeft(let pid, let status): "process \(pid), the former successor, \(status)"
        case .handingOver(let pid, isReady: true): "upgrade complete: process \(pid) serves alone from now on"
        case .handingOver(let pid, isReady: false):
            "process \(pid) is not ready yet: clients wait until it is, and are lost if it fails"
        }
    }

    private static func count(_ workers: Int) -> String { workers == 1 ? "1 worker" : "\(workers) workers" }

    private static func seconds(_ milliseconds: Int64) -> String {
        guard milliseconds % 1000 != 0 else { return "\(milliseconds / 1000) s" }
        return milliseconds < 1000 ? "\(milliseconds) ms" : "\(milliseconds / 1000).\(milliseconds % 1000 / 100) s"
    }
}
