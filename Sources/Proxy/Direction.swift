// One direction of a relay: straight from its source to its target, or through a router that rewrites it.

import Config
import Linux
import Reactor
import RouterProtocol
import SystemPackage

/// The bytes of one direction, and who stands in their way.
///
///     straight:     source ── flow ─▶ target
///     rewritten:    source ── flow ─▶ rewriter's socket ── output ─▶ target
///
/// A rewriter that detaches leaves the flow, which goes on with the first byte that was not given to it.
struct Direction: ~Copyable {
    /// What a turn came to.
    enum Outcome: Equatable {
        /// Nothing more can be moved now.
        case waiting
        /// The turn's share is used up; there may be more.
        case moreToDo
        /// All that there is has been taken by the target.
        case finished
        case sourceFailed(Errno)
        case targetFailed(Errno)

        fileprivate init(_ outcome: Flow.Outcome) {
            self =
                switch outcome {
                case .waiting: .waiting
                case .moreToDo: .moreToDo
                case .finished: .finished
                case .sourceFailed(let error): .sourceFailed(error)
                case .targetFailed(let error): .targetFailed(error)
                }
        }
    }

    /// From the source.
    private var flow: Flow
    private var rewriter: Rewriter?
    /// What the target took of a rewriter that has left, less what that was given.
    private var movedByRewriter: UInt64 = 0
    /// The rewriter has ended the stream before its source did, and the target has all of it.
    private(set) var endedEarly = false
    /// Bytes of the source's that nobody wanted any more.
    private var dropped: UInt64 = 0
    /// Of what nobody wants any more there is still some to drop: in the next turn.
    private(set) var dropsMore = false

    /// Straight on, beginning with bytes that are not from the source.
    init(startingWith first: consuming Buffer?) { flow = Flow(startingWith: first) }

    /// Through a rewriter that is still to come. `first` goes through it, `ahead` past it.
    init(rewriting first: consuming Buffer?, ahead: consuming Buffer?) {
        flow = Flow(startingWith: first)
        rewriter = Rewriter(ahead: ahead)
    }

    /// Whether it passes through a router, or will.
    var isRewritten: Bool { rewriter != nil }

    /// Whether bytes wait for the target.
    var holdsBytes: Bool {
        switch rewriter {
        case .some(let rewriter): flow.holdsBytes || rewriter.output.holdsBytes
        case .none: flow.holdsBytes
        }
    }

    /// The source is not read, for want of its rewriter or of somebody who wants to know: how long it is silent cannot be seen.
    var isHeld: Bool { rewriter.map { $0.isDetaching || $0.isAwaited } ?? false }

    /// The source has ended its side.
    var hasEnded: Bool { flow.hasEnded }
    /// Bytes that have been taken from the source.
    var taken: UInt64 { flow.moved &+ dropped }
    /// Its rewriter has left before it had read all that it was given: what follows would follow a hole.
    var isBroken: Bool { rewriter?.hasLeftBytes ?? false }
    /// Bytes that the target has taken.
    var moved: UInt64 {
        switch rewriter {
        case .some(let rewriter): rewriter.output.moved
        case .none: flow.moved &+ movedByRewriter
        }
    }

    /// Moves what can be moved now, at most a turn's share.
    mutating func pump(from source: inout Transport, to target: inout Transport, _ pools: inout Pools) -> Outcome {
        if endedEarly { return dropRest(source: &source, pools) }
        guard let rewriter else { return Outcome(flow.pump(from: &source, to: &target, &pools)) }
        let given = rewriter.give(&flow, from: &source, &pools)
        switch given {
        case .sourceFailed, .targetFailed: return given
        case .waiting, .moreToDo, .finished: break
        }
        switch rewriter.take(to: &target, &pools) {
        case .targetFailed(let error): return .targetFailed(error)
        case .moreToDo: return .moreToDo
        case .finished: return leave(from: &source, to: &target, &pools)
        case .waiting, .sourceFailed: return given == .moreToDo ? .moreToDo : .waiting
        }
    }

    /// The rewriter has ended its bytes in order, and the target has them.
    private mutating func leave(
        from source: inout Transport, to target: inout Transport, _ pools: inout Pools
    ) -> Outcome {
        guard let rewriter = rewriter.take() else { return .waiting }
        movedByRewriter = rewriter.output.moved &- flow.moved
        guard rewriter.isDetaching else {
            endedEarly = true
            flow.dropBytes()
            return dropRest(source: &source, pools)
        }
        return pump(from: &source, to: &target, &pools)
    }

    /// Nobody wants what the source still says; how it ends is still of interest.
    private mutating func dropRest(source: inout Transport, _ pools: borrowing Pools) -> Outcome {
        do throws(Errno) {
            var budget = Limits.flowBytesPerTurn
            while source.mayRead, !source.hasEnded, budget > 0 {
                guard case .moved(let count) = try source.discard(pools) else { break }
                dropped &+= UInt64(count)
                budget -= count
            }
            dropsMore = source.mayRead && !source.hasEnded
        } catch {
            return .sourceFailed(error)
        }
        return .finished
    }

    // MARK: - The rewriter

    /// It has dialled back.
    func arrived(_ socket: consuming Descriptor) {
        rewriter?.stream = Transport(socket, isRewriter: true)
    }

    /// The end of its bytes, whenever it comes, is meant.
    func endSaid() { rewriter?.isEndSaid = true }

    /// It is to get no more.
    func detaching() { rewriter?.isDetaching = true }

    /// Something can be done with its socket.
    func note(_ readiness: Readiness) {
        if let rewriter, rewriter.stream != nil { rewriter.stream!.note(readiness) }
    }

    /// Has epoll watch its socket.
    func watch(_ poller: borrowing Poller, _ token: Token) throws(Errno) {
        if let rewriter, rewriter.stream != nil { try rewriter.stream!.watch(poller, token) }
    }

    /// Its bytes have ended, and nobody has said that they would: once, for asking whether it was meant.
    func takeUnexplainedEnd() -> Bool {
        rewriter?.takeUnexplainedEnd() ?? false
    }
}

/// A router's socket through which one direction passes. On the heap: most directions have none, and idle ones are many.
private final class Rewriter {
    /// Nil until it has dialled back.
    var stream: Transport?
    /// From the rewriter to the target.
    var output: Flow
    /// The end of its bytes is meant.
    var isEndSaid = false
    /// It wants no more of the source's bytes.
    var isDetaching = false
    /// It reads no more.
    private var isDeaf = false
    private var endPassedOn = false
    /// Its bytes have ended.
    private var hasEnded = false
    /// It closed with bytes that it had not read.
    private var endedUnread = false
    private var isEndExplained = false

    init(ahead: consuming Buffer?) { output = Flow(startingWith: ahead) }

    /// Gives it what the source says.
    func give(
        _ flow: inout Flow, from source: inout Transport, _ pools: inout Pools
    ) -> Direction.Outcome {
        guard stream != nil, !isDeaf, !endPassedOn else { return .waiting }
        let outcome =
            isDetaching ? flow.deliver(to: &stream!, &pools) : flow.pump(from: &source, to: &stream!, &pools)
        switch outcome {
        case .finished:
            endPassedOn = true
            stream!.endWriting()
        // Whether it may is for the end of its own bytes to tell.
        case .targetFailed: isDeaf = true
        case .sourceFailed(let error): return .sourceFailed(error)
        case .waiting: break
        case .moreToDo: return .moreToDo
        }
        return .waiting
    }

    /// Gives the target what it says. `.finished`: the end of that, and it was meant.
    func take(to target: inout Transport, _ pools: inout Pools) -> Direction.Outcome {
        guard stream != nil else {
            // What goes past it need not wait for it.
            if case .targetFailed(let error) = output.deliver(to: &target, &pools) { return .targetFailed(error) }
            return .waiting
        }
        if !hasEnded {
            switch output.pump(from: &stream!, to: &target, &pools) {
            case .waiting: return .waiting
            case .moreToDo: return .moreToDo
            case .targetFailed(let error): return .targetFailed(error)
            // Closing a Unix socket with unread bytes in it looks like a reset, after the bytes that it has written.
            case .finished: hasEnded = true
            case .sourceFailed: (hasEnded, endedUnread) = (true, true)
            }
        }
        return isEndSaid && !hasLeftBytes ? .finished : .waiting
    }

    /// It has not dialled back yet.
    var isAwaited: Bool {
        switch stream {
        case .some: false
        case .none: true
        }
    }

    /// One that leaves reads to the end first, and gives on what it read: only then does the rest follow without a hole.
    var hasLeftBytes: Bool { isDetaching && hasEnded && (endedUnread || isDeaf || !endPassedOn) }

    func takeUnexplainedEnd() -> Bool {
        guard hasEnded, !isEndSaid, !isEndExplained else { return false }
        isEndExplained = true
        return true
    }
}
