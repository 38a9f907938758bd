// One direction of a relay: it owns the bytes in between and is lent both ends.

import Config
import Linux
import SystemPackage

/// Bytes on their way from one transport to the other, and the end of them.
///
/// Small messages are copied through the worker's scratch memory, so that an idle flow holds nothing. A read that
/// fills a message's worth is the mark of a large flow: from then on its bytes stay in the kernel (splice).
struct Flow: ~Copyable {
    /// Where bytes are that the target has not taken yet.
    private enum Between: ~Copyable {
        case nothing
        case memory(Buffer)
        case pipe(LentPipe)
    }

    /// How the next bytes travel.
    private enum Manner {
        case copying
        /// By splice; after `smallMoves` small ones in a row copying is cheaper again.
        case splicing(smallMoves: UInt8)
    }

    /// What a turn came to.
    enum Outcome: Equatable {
        /// Nothing more can be moved now.
        case waiting
        /// The turn's share is used up; there may be more.
        case moreToDo
        /// The source has ended and the target has taken all.
        case finished
        case sourceFailed(Errno)
        case targetFailed(Errno)
    }

    private var between: Between
    private var manner = Manner.copying
    /// The source has ended its side.
    private(set) var hasEnded = false
    /// Bytes the target has taken.
    private(set) var moved: UInt64 = 0

    /// A splice below this is a message, not a large flow.
    private static let smallMove = 4096
    private static let smallMovesMax: UInt8 = 8

    /// A flow that begins with bytes that are not from the source: the initial bytes or a reply.
    init(startingWith buffer: consuming Buffer?) {
        if let buffer, !buffer.isEmpty { between = .memory(buffer) } else { between = .nothing }
    }

    /// Whether the target has not taken everything yet that was read.
    var holdsBytes: Bool {
        switch between {
        case .nothing: false
        case .memory: true
        case .pipe: true
        }
    }

    /// Moves what can be moved now, at most a turn's share.
    mutating func pump(from source: inout Transport, to target: inout Transport, _ pools: inout Pools) -> Outcome {
        var budget = Limits.flowBytesPerTurn
        while true {
            switch flush(to: &target, &pools, &budget) {
            case .done: break
            case .blocked: return .waiting
            case .failed(let error): return .targetFailed(error)
            }
            if hasEnded { return .finished }
            if budget <= 0 { return .moreToDo }
            guard source.mayRead, target.mayWrite else { return .waiting }
            switch manner {
            case .copying:
                if let outcome = copy(Pools.messageBytes, from: &source, to: &target, &pools, &budget) {
                    return outcome
                }
            case .splicing(let smallMoves):
                guard source.givesBySplice, target.isPlain else {
                    // Records are made and opened in our memory: only kernel TLS could splice.
                    // Out of TLS smaller reads cost less: what they pass through stays in the cache.
                    if let outcome = copy(
                        source.isPlain ? Pools.copiedBytes : Pools.largeBytes, from: &source, to: &target, &pools,
                        &budget)
                    {
                        return outcome
                    }
                    continue
                }
                guard let pipe = pools.lendPipe() else {
                    // None to be had: larger reads, and the next turn asks again.
                    if let outcome = copy(Pools.largeBytes, from: &source, to: &target, &pools, &budget) {
                        return outcome
                    }
                    continue
                }
                if let outcome = splice(through: pipe, from: &source, &pools, smallMoves) { return outcome }
            }
        }
    }

    /// Forgets what is in between: nobody wants it any more.
    mutating func dropBytes() { between = .nothing }

    /// Gives the target what is in between, and reads nothing. `.finished`: nothing is left.
    mutating func deliver(to target: inout Transport, _ pools: inout Pools) -> Outcome {
        var budget = Limits.flowBytesPerTurn
        return switch flush(to: &target, &pools, &budget) {
        case .done: .finished
        case .blocked: .waiting
        case .failed(let error): .targetFailed(error)
        }
    }

    private enum Flushed {
        case done, blocked
        case failed(Errno)
    }

    /// Gives the target what is in between.
    private mutating func flush(to target: inout Transport, _ pools: inout Pools, _ budget: inout Int) -> Flushed {
        while true {
            if holdsBytes && !target.mayWrite { return .blocked }
            let result: Result<Transfer, Errno>
            var current = Between.nothing
            swap(&current, &between)
            switch consume current {
            case .nothing: return .done
            case .memory(var buffer):
                result = Result { () throws(Errno) in try target.write(&buffer) }
                if !buffer.isEmpty { between = .memory(buffer) }
            case .pipe(var pipe):
                result = Result { () throws(Errno) in try target.splice(from: &pipe) }
                if pipe.count == 0 {
                    pools.giveBack(pipe)
                } else {
                    between = .pipe(pipe)
                }
            }
            switch result {
            case .success(.moved(let count)):
                moved &+= UInt64(count)
                budget -= count
            case .success(.wouldBlock), .success(.endOfStream): return .blocked
            case .failure(let error): return .failed(error)
            }
        }
    }

    /// Reads once and writes it on at once. Nil: go on.
    private mutating func copy(
        _ size: Int, from source: inout Transport, to target: inout Transport, _ pools: inout Pools, _ budget: inout Int
    ) -> Outcome? {
        guard let memory = unsafe pools.scratch.baseAddress else { return .waiting }
        let count: Int
        do throws(Errno) {
            switch try unsafe source.read(into: memory, count: size) {
            case .moved(let read): count = read
            case .wouldBlock: return .waiting
            case .endOfStream:
                hasEnded = true
                return .finished
            }
        } catch {
            return .sourceFailed(error)
        }
        // Of small records a whole socketful brings few bytes, and takes as long as many.
        budget -= source.mayRead ? size : count
        guard count > 0 else { return nil }
        if count == size, size == Pools.messageBytes { manner = .splicing(smallMoves: 0) }
        var taken = 0
        do throws(Errno) {
            if case .moved(let written) = try unsafe target.write(from: memory, count: count) { taken = written }
        } catch {
            return .targetFailed(error)
        }
        moved &+= UInt64(taken)
        if taken < count {
            between = unsafe .memory(Buffer(UnsafeRawBufferPointer(start: memory + taken, count: count - taken)))
        }
        return nil
    }

    /// Fills a pipe once; `flush` empties it. Nil: go on.
    private mutating func splice(
        through lent: consuming LentPipe, from source: inout Transport, _ pools: inout Pools, _ smallMoves: UInt8
    ) -> Outcome? {
        var pipe = lent
        do throws(Errno) {
            switch try source.splice(into: &pipe, count: Limits.flowBytesPerTurn) {
            case .moved(let count):
                if count >= Self.smallMove {
                    manner = .splicing(smallMoves: 0)
                } else {
                    manner = smallMoves < Self.smallMovesMax ? .splicing(smallMoves: smallMoves + 1) : .copying
                }
                between = .pipe(pipe)
                return nil
            case .wouldBlock:
                pools.giveBack(pipe)
                return .waiting
            case .endOfStream:
                pools.giveBack(pipe)
                hasEnded = true
                return .finished
            }
        } catch {
            pools.giveBack(pipe)
            return .sourceFailed(error)
        }
    }
}
