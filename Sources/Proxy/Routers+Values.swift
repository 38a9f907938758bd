// What goes into `Routers` and comes out of it: values without references, so that moving them costs nothing.

import Config
import Glibc
import Linux
import SystemPackage

/// Names one router process (later: one connection to a router) for the worker's life; never reused.
struct RouterID: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
    let number: UInt64
    /// No router.
    static let none = RouterID(number: 0)

    /// The first id of a role is one more than this.
    static func base(_ role: RouterRole) -> UInt64 { UInt64(role.rawValue) &<< 56 }

    var role: RouterRole { RouterRole(rawValue: UInt8(truncatingIfNeeded: number &>> 56)) ?? .main }

    var description: String {
        let own = number &- Self.base(role)
        return role == .main ? "\(own)" : "\(own) (\(role))"
    }
}

/// What a router is for.
enum RouterRole: UInt8, Sendable, BitwiseCopyable {
    /// It decides.
    case main
    /// It decides for a share of the clients (`--canary-router`).
    case canary
    /// It is asked the same, and its answers are compared (`--shadow-router`).
    case shadow
}

/// How a router came to be.
enum RouterKind: UInt8, Sendable, BitwiseCopyable {
    /// Started by the worker, which talks to it over its standard input and output.
    case process
    /// Somebody else's, behind a Unix socket: "started" is connected, and there is no process to end.
    case unix
}

/// What a router said of itself in answer to `hello`.
struct RouterAbilities: Equatable, Sendable, BitwiseCopyable {
    /// Questions it wants open at once; 1 makes a blocking script correct.
    var maxInFlight = Limits.maxInFlightDefault
    /// It implements `proxy_error`.
    var answersProxyError = false
    /// It wants to hear that an answer is no longer needed.
    var wantsCancel = false
    /// It wants to hear that it is to leave.
    var wantsShutdown = false
}

/// Every bound of `Routers`. Durations are milliseconds.
struct RouterLimits: Sendable {
    /// Questions held in all: one per connection, so a worker's connections. Beyond it `ask` refuses.
    var questionsMax = Limits.workerConnectionsDefault
    /// Questions in the queue at which the worker is told to accept no more.
    var waitingMax = Limits.waitingQuestionsMax
    /// What a router may claim as its own maximum.
    var inFlightMax = Limits.maxInFlightMax
    /// A router's time for one question, from the moment it is put to it.
    var routerTimeoutMilliseconds = Int64(Limits.routerTimeoutMillisecondsDefault)
    /// A question's time in the queue. It ends a wait that nobody else ends: while a connection has no verdict, its client's
    /// own deadline comes first, so that routers that wedge one after the other cost nobody an answer.
    var waitingTimeoutMilliseconds = Int64(Limits.verdictTimeoutMillisecondsDefault)
    /// For how long there may be nobody to decide before questions stop waiting for somebody. Nil: they wait their time out.
    var absenceMilliseconds: Int64?
    /// How far `progress` can move a deadline, from the moment the question was put.
    var progressMaxMilliseconds = Int64(Limits.verdictTimeoutMillisecondsDefault)
    /// A router's time to answer `hello`, from the spawn.
    var helloTimeoutMilliseconds = Int64(Limits.helloTimeoutMilliseconds)
    /// How long we wait for the exit status of a new router that closed its socket: it is the better reason.
    var exitStatusTimeoutMilliseconds: Int64 = 250
    /// From `shutdown` and the end of its input to TERM, from there to KILL, from there to giving it up.
    var shutdownTimeoutMilliseconds = Int64(Limits.routerShutdownMilliseconds)
    var terminateTimeoutMilliseconds = Int64(Limits.routerShutdownMilliseconds)
    var killTimeoutMilliseconds = Int64(Limits.routerShutdownMilliseconds)
    /// The second restart without an answer in between waits for the first of these, each further one twice as long.
    var restartDelayMinMilliseconds = Int64(Limits.routerBackoffMillisecondsMin)
    var restartDelayMaxMilliseconds = Int64(Limits.routerBackoffMillisecondsMax)
    /// A death in a trial is followed by the shortest delay at most while an answer came this lately: others wait, and it is
    /// not the router's fault. Without answers it may be.
    var answersMilliseconds: Int64 = 30_000
    /// Router processes of one worker, those that are leaving included.
    var livesMax = 1 + Limits.routersLeavingMax
    /// What the routers are, and how many decide beside each other.
    var kind = RouterKind.process
    var routers = 1
    /// Whether the questions of a router that is gone are put to the next one; else they fail.
    var replays = true
    /// The worker serves without waiting for the first one, and one that does not come up is tried again.
    var mayBeAbsent = false
    /// How long the new generation of a reload has to live without an open question, if it answers none, before the old
    /// one is sent away; and at most with one.
    var provingMilliseconds = Int64(Limits.routerProvingMilliseconds)
    var provingMaxMilliseconds: Int64 = 10_000
    /// Suspects that are tried at once while they were open at one death only.
    var trialMax = 8
    /// For how long a router is kept free for a trial. Twice as long for each further death the suspect has seen, three times.
    var trialMilliseconds: Int64 = 500
    /// Questions that are put between two trials, if so many wait.
    var othersPerTurn = 64
}

/// Why a question ends without a verdict.
enum QuestionFailure: UInt8, Sendable, BitwiseCopyable {
    /// The router did not answer in time; it answers others.
    case deadline
    /// It waited its time out and no router was there, or none will be.
    case noRouter
    /// It waited its time out behind others, or there was no room to wait.
    case overloaded
    /// Routers die of it: twice it was the only one open when one did.
    case poison
    /// The router does not implement this kind of question.
    case notImplemented
}

/// How a router ended, or why it has to. The worker reports the first six.
enum RouterEnd: Equatable, Sendable, BitwiseCopyable, CustomStringConvertible {
    /// The process is gone: its exit status, or the signal that ended it.
    case exited(Int32)
    case signalled(Int32)
    /// There never was a process: the errno.
    case spawnFailed(Int32)
    /// There is nobody behind its path: the errno. Or somebody of this user, whom nobody has trusted with it.
    case unreachable(Int32)
    case stranger(UInt32)
    /// It closed its socket.
    case closed
    /// Too much that it had to be told was waiting for it to read. The link has logged how much.
    case unread
    /// What it writes is no protocol: a line without end, or nothing but garbage. The link has logged the details.
    case brokenFraming
    /// It answered `hello` with something we must refuse. The link has logged the details.
    case badGreeting
    /// It did not answer `hello` in so many milliseconds.
    case noGreeting(Int64)
    /// It was asked and wrote nothing for so many milliseconds.
    case wedged(Int64)

    /// By a signal that people and service managers send, so it says less about the question that was open.
    var mayComeFromOutside: Bool {
        if case .signalled(let signal) = self {
            [SIGKILL, SIGTERM, SIGINT, SIGHUP, SIGQUIT].contains(signal)
        } else {
            false
        }
    }

    /// Nothing is left that could be sent a signal.
    var processIsGone: Bool {
        switch self {
        case .exited, .signalled, .spawnFailed, .unreachable, .stranger: true
        case .closed, .unread, .brokenFraming, .badGreeting, .noGreeting, .wedged: false
        }
    }

    var description: String {
        switch self {
        case .exited(let status): "exited with status \(status)"
        case .signalled(let signal): "was ended by signal \(signal) (\(SignalName.of(signal)))"
        case .spawnFailed(let errno): "could not be started: \(Errno(rawValue: errno))"
        case .unreachable(let errno): "cannot be reached: \(Errno(rawValue: errno))"
        case .stranger(let user):
            "belongs to user \(user), who is neither ours nor root nor the owner of the folder it is in"
        case .closed: "closed its socket"
        case .unread: "did not read what it had to be told"
        case .brokenFraming: "wrote what is not the protocol"
        case .badGreeting: "answered hello with something that cannot be used"
        case .noGreeting(let milliseconds):
            "did not answer hello within \(milliseconds) ms: it has to read standard input line by line, to answer every "
                + "line that has an id, and to flush what it prints"
        case .wedged(let milliseconds): "was asked and wrote nothing for \(milliseconds) ms"
        }
    }
}

/// What the worker has to do, in this order.
enum RouterAction: Equatable, Sendable, BitwiseCopyable {
    /// Start a router, greet it, and report `greeted` or `died`.
    case spawn(RouterID, RouterKind, generation: Int)
    /// Write a question to the router, from what the asker's connection holds.
    case send(QuestionToSend)
    /// Tell the router that the answer is no longer needed.
    case cancel(RouterID, id: UInt64, Asker)
    /// End the router's input, after the `shutdown` notification if it is to be told.
    case shutdown(RouterID, told: Bool)
    /// TERM, then KILL, to its process group.
    case terminate(RouterID)
    case kill(RouterID)
    /// Close everything of it: nothing more will be said about it. Its process may still have to be reaped.
    case release(RouterID)
    /// Its question ends without a verdict.
    case fail(Asker, QuestionFailure)
    /// The first router ever has answered `hello`: the worker may accept.
    case ready
    /// The first router ever did not come up: the worker has to leave. No further router is started.
    case bootFailed(RouterEnd)
    /// The answer to `reload`: a new generation decides; or the old one stays.
    case reloaded(generation: Int)
    case reloadFailed(RouterEnd)
    /// The answer to `drain`: no router is left.
    case drained
    /// Something for the log.
    case note(RouterNote)
}

/// A question to be written to a router.
struct QuestionToSend: Equatable, Sendable, BitwiseCopyable {
    var router: RouterID
    var id: UInt64
    var asker: Asker
    var kind: QuestionKind
    /// How many routers were asked before this one.
    var replay: UInt8
    /// The router's time from now.
    var deadlineMilliseconds: Int64
}

/// A question whose answer has come, held until `applied`.
struct AnsweredQuestion: Equatable, Sendable, BitwiseCopyable {
    var token: QuestionToken
    var asker: Asker
    var kind: QuestionKind
}

/// What the log should say about routers.
enum RouterNote: Equatable, Sendable, BitwiseCopyable, CustomStringConvertible {
    case started(RouterID, generation: Int)
    case greeted(RouterID, maxInFlight: Int)
    /// A router that decided is gone; so many questions were open, and so many of them are put to the next one.
    case lost(RouterID, RouterEnd, open: Int, replayed: Int)
    /// The new generation of a reload is gone before it has proved itself. The old router, if it is still there, decides again.
    case undone(RouterID, RouterEnd, old: RouterID?, open: Int, replayed: Int)
    /// The pause before the next try, if there is one and it is worth a word.
    case failedToStart(RouterID, RouterEnd, next: Int64?)
    case restartLater(milliseconds: Int64)
    /// A router that was told to leave, or had to, is gone.
    case left(RouterID, RouterEnd)
    case tookTooLong(RouterID, RouterAction.Step)
    case survivedKill(RouterID)

    enum Level: Sendable { case debug, info, warning, error }

    var level: Level {
        switch self {
        case .started, .greeted, .left: .info
        case .restartLater, .tookTooLong: .warning
        case .lost, .undone, .failedToStart, .survivedKill: .error
        }
    }

    var description: String {
        switch self {
        case .started(let router, let generation): "router \(router) (generation \(generation)) started"
        case .greeted(let router, let maxInFlight):
            "router \(router) is ready for \(maxInFlight) question\(maxInFlight == 1 ? "" : "s") at once"
        case .lost(let router, let end, let open, let replayed): "router \(router) \(end); \(Self.fate(open, replayed))"
        case .undone(let router, let end, let old, let open, let replayed):
            "the new router \(router) \(end) before it had proved itself; "
                + (old.map { "router \($0) decides again; " } ?? "") + Self.fate(open, replayed)
        case .failedToStart(let router, let end, let next):
            "router \(router) did not come up: it \(end)" + (next.map { "; next try in \($0) ms" } ?? "")
        case .restartLater(let milliseconds): "next try to start a router in \(milliseconds) ms"
        case .left(let router, let end): "router \(router) left: it \(end)"
        case .tookTooLong(let router, .terminate): "router \(router) did not leave when told to: TERM"
        case .tookTooLong(let router, .kill): "router \(router) did not leave at TERM: KILL"
        case .survivedKill(let router): "router \(router) is still there after KILL and is given up"
        }
    }

    /// What becomes of the questions of a router that is gone.
    private static func fate(_ open: Int, _ replayed: Int) -> String {
        guard open > 0 else { return "no question was open" }
        return "\(open) question\(open == 1 ? " was" : "s were") open, "
            + (replayed == open ? "" : replayed == 0 ? "none " : "\(replayed) ") + "to be put to the next router"
    }
}

extension RouterAction {
    /// The two signals of a departure.
    enum Step: Equatable, Sendable, BitwiseCopyable { case terminate, kill }
}

/// What has been counted since the start. Only ever rises.
struct RouterCounters: Equatable, Sendable, BitwiseCopyable {
    var asked: UInt64 = 0
    var sent: UInt64 = 0
    var answered: UInt64 = 0
    var withdrawn: UInt64 = 0
    var failed: UInt64 = 0
    var replayed: UInt64 = 0
    /// Answers to questions that were not open any more: withdrawn, too late, or answered before.
    var lateAnswers: UInt64 = 0
    /// Answers with an id that was never asked.
    var unknownAnswers: UInt64 = 0
    var spawned: UInt64 = 0
    /// Routers that ended while they decided.
    var lost: UInt64 = 0
    /// Questions that routers died of.
    var poisonous: UInt64 = 0
}
