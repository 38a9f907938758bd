// Verdicts that are given again without a question: what a router allowed to be kept, by what it said decided. One of them in
// a worker. Pure: the clock and the bytes are lent.

import Addressing
import Config
import RouterProtocol

/// Names one kept verdict, and no other that comes to lie in its place.
struct CacheEntryID: Equatable {
    fileprivate let index: Int32
    fileprivate let generation: UInt32
}

/// The kept verdicts of a worker.
struct VerdictCache {
    struct Hit: Equatable {
        let verdict: Verdict
        /// To be dropped if it cannot be carried out.
        let entry: CacheEntryID
    }

    struct Counters: Equatable {
        var hits: UInt64 = 0
        /// Look-ups in vain, for listeners that have something in the cache.
        var misses: UInt64 = 0
        var stored: UInt64 = 0
        /// Dropped because there were too many.
        var evicted: UInt64 = 0
    }

    private struct Entry {
        var key: CacheKey
        var verdict: Verdict
        var expiresAt: Int64
        var bytes: Int
        /// Neighbours in the order of last use, or -1.
        var newer: Int32 = -1
        var older: Int32 = -1
        var generation: UInt32
        var isKept = true
    }

    private(set) var counters = Counters()
    private(set) var count = 0
    /// Roughly what the kept verdicts take.
    private(set) var bytes = 0
    /// Changes whenever what was true of the verdicts may be so no longer. Remember it with each question: a verdict is kept
    /// only if nothing happened since.
    private(set) var epoch: UInt64 = 0

    private let listeners: [String]
    private let entriesMax: Int
    private let bytesMax: Int
    private var places: [CacheKey: Int32] = [:]
    private var entries: [Entry] = []
    private var free: [Int32] = []
    private var newest: Int32 = -1
    private var oldest: Int32 = -1
    /// How many entries each kind of key has with each listener, and for each listener one bit a kind that has any.
    private var counts: [Int32]
    private var kindsInUse: [UInt16]
    /// The kinds of key as they are tried: of most parts first.
    private let order: [CacheParts]
    /// The key of the look-up, built in place.
    private var scratch = CacheKey()

    /// `listeners`: their names, as `invalidate` calls them.
    init(listeners: [String], entriesMax: Int = Limits.cacheEntriesMax, bytesMax: Int = Limits.cacheBytesMax) {
        self.listeners = listeners
        self.entriesMax = entriesMax
        self.bytesMax = bytesMax
        counts = [Int32](repeating: 0, count: listeners.count * CacheKey.kinds)
        kindsInUse = [UInt16](repeating: 0, count: listeners.count)
        order = (0..<UInt8(CacheKey.kinds)).sorted {
            ($0.nonzeroBitCount, $0) > ($1.nonzeroBitCount, $1)
        }.map { CacheParts(rawValue: $0) }
    }

    // MARK: The way of a question

    /// The verdict for a connection about which a question would be asked now. `data` is what the question would carry.
    mutating func find(_ subject: CacheSubject, data: Span<UInt8>, now: Int64) -> Hit? {
        guard kindsInUse.indices.contains(subject.listener) else { return nil }
        let inUse = kindsInUse[subject.listener]
        guard inUse != 0 else { return nil }
        var host = CacheKey.Host.notLookedFor
        for kind in order where inUse & Self.bit(kind) != 0 {
            guard scratch.make(kind, subject, &host, in: data), let index = places[scratch] else { continue }
            guard now < entries[Int(index)].expiresAt else {
                remove(index)
                continue
            }
            counters.hits &+= 1
            touch(index)
            return Hit(verdict: entries[Int(index)].verdict, entry: id(index))
        }
        counters.misses &+= 1
        return nil
    }

    /// Keeps the verdict that answers a question, if it says so and its key is known. `askedIn` is the epoch in which the
    /// question was asked.
    mutating func keep(
        _ verdict: Verdict, _ subject: CacheSubject, data: Span<UInt8>, askedIn: UInt64, now: Int64
    ) -> CacheEntryID? {
        guard askedIn == epoch, listeners.indices.contains(subject.listener),
            let (verdict, rule) = verdict.forFurtherClients
        else { return nil }
        var host = CacheKey.Host.notLookedFor
        var key = CacheKey()
        guard key.make(rule.key, subject, &host, in: data) else { return nil }
        let bytes = Self.entryBytes &+ key.bytes.count &+ verdict.cachedBytes
        guard bytes <= min(Limits.cacheEntryBytesMax, bytesMax), entriesMax > 0 else { return nil }
        if let index = places[key] { remove(index) }
        while count >= entriesMax || self.bytes &+ bytes > bytesMax {
            counters.evicted &+= 1
            remove(oldest)
        }
        counters.stored &+= 1
        let expiresAt = now.addingReportingOverflow(Int64(rule.milliseconds))
        return insert(key, verdict, bytes, until: expiresAt.overflow ? .max : expiresAt.partialValue)
    }

    /// A kept verdict could not be carried out: the next connection is asked about.
    mutating func drop(_ entry: CacheEntryID) {
        guard entries.indices.contains(Int(entry.index)), id(entry.index) == entry, entries[Int(entry.index)].isKept
        else { return }
        remove(entry.index)
    }

    // MARK: What ends many at once

    /// Routers of a new generation decide from now on.
    mutating func reload() { invalidate(.all) }

    mutating func invalidate(_ invalidation: Invalidation) {
        epoch &+= 1
        switch invalidation {
        case .all: for index in entries.indices where entries[index].isKept { remove(Int32(index)) }
        case .part(.listener, let name):
            for index in entries.indices where entries[index].isKept {
                let listener = entries[index].key.listener
                if listeners[listener].utf8.elementsEqual(name) { remove(Int32(index)) }
            }
        case .part(let part, let value):
            guard let wanted = CacheKey.value(value, of: part) else { return }
            // A key of this part alone is looked up; all keys are gone through only where it may be one part of several.
            let alone = CacheParts(part)
            var others: UInt16 = 0
            for listener in listeners.indices {
                let inUse = kindsInUse[listener]
                for kind in order where kind.contains(alone) && kind != alone { others |= inUse & Self.bit(kind) }
                guard inUse & Self.bit(alone) != 0 else { continue }
                if let index = places[CacheKey(wanted, as: part, listener: listener)] { remove(index) }
            }
            guard others != 0 else { return }
            for index in entries.indices where entries[index].isKept && entries[index].key.has(wanted, as: part) {
                remove(Int32(index))
            }
        }
    }

    // MARK: The entries

    /// What an entry takes beside its bytes, roughly.
    private static let entryBytes = 512

    private static func bit(_ kind: CacheParts) -> UInt16 { 1 &<< UInt16(kind.rawValue) }

    private func id(_ index: Int32) -> CacheEntryID {
        CacheEntryID(index: index, generation: entries[Int(index)].generation)
    }

    private mutating func insert(_ key: CacheKey, _ verdict: Verdict, _ bytes: Int, until: Int64) -> CacheEntryID {
        let index: Int32
        if let reused = free.popLast() {
            index = reused
            let generation = entries[Int(index)].generation &+ 1
            entries[Int(index)] = Entry(
                key: key, verdict: verdict, expiresAt: until, bytes: bytes, generation: generation)
        } else {
            index = Int32(truncatingIfNeeded: entries.count)
            entries.append(Entry(key: key, verdict: verdict, expiresAt: until, bytes: bytes, generation: 0))
        }
        places[key] = index
        link(index)
        count &+= 1
        self.bytes &+= bytes
        use(key, 1)
        return id(index)
    }

    private mutating func remove(_ index: Int32) {
        let place = Int(index)
        let key = entries[place].key
        unlink(index)
        places[key] = nil
        count &-= 1
        bytes &-= entries[place].bytes
        use(key, -1)
        entries[place].isKept = false
        // What it held is not wanted any more.
        entries[place].key = CacheKey()
        entries[place].verdict = .undecided(waitFor: nil)
        free.append(index)
    }

    /// Counts the entries of a kind.
    private mutating func use(_ key: CacheKey, _ change: Int32) {
        let place = key.listener * CacheKey.kinds + Int(key.parts.rawValue)
        counts[place] &+= change
        if counts[place] == 0 {
            kindsInUse[key.listener] &= ~Self.bit(key.parts)
        } else {
            kindsInUse[key.listener] |= Self.bit(key.parts)
        }
    }

    private mutating func touch(_ index: Int32) {
        guard index != newest else { return }
        unlink(index)
        link(index)
    }

    private mutating func link(_ index: Int32) {
        entries[Int(index)].newer = -1
        entries[Int(index)].older = newest
        if newest >= 0 { entries[Int(newest)].newer = index } else { oldest = index }
        newest = index
    }

    private mutating func unlink(_ index: Int32) {
        let (newer, older) = (entries[Int(index)].newer, entries[Int(index)].older)
        if newer >= 0 { entries[Int(newer)].older = older } else { newest = older }
        if older >= 0 { entries[Int(older)].newer = newer } else { oldest = newer }
    }
}

extension Verdict {
    /// The verdict as it is given to others, and what it says about that; nil when it says nothing, or has something in it
    /// that was for one client. The wire refuses the latter already.
    fileprivate var forFurtherClients: (Verdict, CacheRule)? {
        switch self {
        case .undecided, .exchange: return nil
        case .remote(var verdict):
            guard let rule = verdict.cache, verdict.data == nil, verdict.reply.isEmpty, verdict.consume == 0
            else { return nil }
            verdict.cache = nil
            return (.remote(verdict), rule)
        case .close(var verdict):
            guard let rule = verdict.cache else { return nil }
            verdict.cache = nil
            return (.close(verdict), rule)
        case .file(var verdict):
            guard let rule = verdict.cache, verdict.reply.isEmpty, case .path = verdict.source else { return nil }
            verdict.cache = nil
            return (.file(verdict), rule)
        }
    }

    /// What of it lies in memory of its own, roughly.
    fileprivate var cachedBytes: Int {
        switch self {
        case .undecided, .exchange: 0
        case .remote(let verdict):
            verdict.remotes.reduce(verdict.extra?.count ?? 0) { $0 &+ 64 &+ $1.host.utf8.count } &+ verdict.labels.bytes
        case .close(let verdict): verdict.bytes.count &+ verdict.labels.bytes
        case .file(let verdict):
            switch verdict.source {
            case .path(let path): path.utf8.count &+ verdict.labels.bytes
            case .descriptor: 0
            }
        }
    }
}

extension Labels {
    fileprivate var bytes: Int { tags.reduce(note?.utf8.count ?? 0) { $0 &+ 32 &+ $1.utf8.count } }
}
