// What is known of a connection whatever its phase: for questions, log lines and the access log.

import Addressing
import Config
import Linux
import Reactor
import RouterProtocol
import TLS

/// The facts of one connection, gathered from accept to close.
struct Facts {
    /// Names the connection's registrations; its slot and generation name the connection itself.
    let token: Token
    /// Counts the connections of this worker; with the worker's own number it makes the id, unique per arbiter.
    let serial: UInt64
    /// Which of the worker's listeners it came by.
    let listener: Int
    let client: SocketAddress
    /// Monotonic microseconds, as all times here.
    let acceptedAt: Int64

    var verdictAt: Int64?
    var connectedAt: Int64?
    /// The word for the access log: what was decided.
    var verdict = "none"
    /// The remote that was connected, or the last one tried.
    var remote: Endpoint?
    /// How many remotes were tried.
    var attempts = 0
    var bytesToRemote: UInt64 = 0
    var bytesToClient: UInt64 = 0
    /// As many of them were said while nothing was decided: they are no part of the answer.
    var toldBefore: UInt64 = 0
    var note: String?
    var tags: [String] = []
    /// The canary failed it: from now on the main router decides.
    var avoidsCanary = false
    /// The router whose verdict it goes by; nil for a kept one.
    var decider: RouterID?
    /// Which directions that router rewrites, or, for a kept verdict, those that decide now.
    var rewritten: StreamDirections = []
    /// How many questions about failures were asked.
    var errorQuestions = 0

    /// The directions that pass through a router when this is the verdict.
    func rewritten(by verdict: RemoteVerdict) -> StreamDirections { verdict.rewrite.intersection(rewritten) }

    /// A verdict has come.
    mutating func decided(_ verdict: String, _ labels: Labels, _ around: borrowing Surroundings) {
        self.verdict = verdict
        verdictAt = around.nowMicroseconds
        note = labels.note
        tags = labels.tags
    }
}

/// What a connection borrows while it handles an event. One of them in a worker.
struct Surroundings: ~Copyable {
    var pools: Pools
    var poller: Poller
    /// The file of the verdict that is being carried out, when it came as a descriptor.
    var takenFile: RegularFile?
    /// The socket of the rewriter that has just arrived.
    var arrivedStream: Descriptor?
    /// What the router that decides wants to be asked about besides bytes.
    var wantedEvents = EventSet()
    let settings: Settings
    /// Where files of verdicts are, when `--file-root` says so.
    var fileRoot: RootFolder?
    /// TLS towards remotes, by the arguments that verdicts have given.
    let remoteTLS = RemoteTLSCache()
    /// Where this tproxy listens: a remote among these would be ourselves.
    let ownAddresses: [SocketAddress]
    /// What the connection that is handling an event wants done after it.
    var effects = Effects()
    /// The time of this round of events: monotonic microseconds.
    var nowMicroseconds: Int64

    /// The same in milliseconds, as deadlines are given.
    var now: Int64 { nowMicroseconds / 1000 }

    /// Opens the file that a verdict names.
    func open(_ path: String) throws(RegularFile.Failure) -> RegularFile {
        switch fileRoot {
        case .some(let folder): try RegularFile(path: path, below: folder)
        case .none: try RegularFile(path: path)
        }
    }

    /// Begins TLS with a remote.
    func session(
        with remote: Endpoint, _ arguments: TLSArguments, socket: Int32
    ) throws(TLSFailure) -> TLSSession {
        try TLSSession(
            remote: try remoteTLS.find(arguments), host: remote, socket: socket, wire: pools.wire)
    }
}

/// What a connection asks the worker to do, performed by the worker in one place after each event.
struct Effects {
    enum Asking: Equatable { case nothing, question, errorQuestion, withdraw }

    /// Put a question to the router, or take the open one back.
    var asking = Asking.nothing
    /// Resolve this name; `.names` brings the addresses.
    var lookUp: String?
    /// Have a router dial back for these directions, and tell it this.
    var streams: StreamDirections = []
    var extra: [UInt8]?
    /// These directions go without a rewriter from now on.
    var streamsOver: StreamDirections = []
    /// Find out whether the end of these directions' rewriters was meant.
    var endsUnexplained: StreamDirections = []
    var concernsStreams: Bool { !(streams.isEmpty && streamsOver.isEmpty && endsUnexplained.isEmpty) }
    /// The turn's share is used up: send `.resume` in the next round.
    var moreToDo = false
    /// The kernel would not watch a descriptor: the connection cannot go on.
    var watchFailure: CloseReason?
    /// Why something ended otherwise than it should, for the log.
    var remark: String?
}

/// Events as a set.
struct EventSet: OptionSet {
    let rawValue: UInt8

    static let data = EventSet(.data)
    static let connect = EventSet(.connect)
    static let silence = EventSet(.silence)
    static let eof = EventSet(.eof)
    static let timeout = EventSet(.timeout)

    init(rawValue: UInt8) { self.rawValue = rawValue }

    init(_ event: Event) {
        rawValue =
            switch event {
            case .data: 1
            case .connect: 2
            case .silence: 4
            case .eof: 8
            case .timeout: 16
            }
    }
}
