// Streams as values: every one is told once at a time, arrives once, and is forgotten with its connection.

import Reactor
import RouterProtocol
import Testing

@testable import Proxy

@Suite struct StreamTokenTests {
    @Test("a token is 32 digits, is read back, and no two are alike")
    func text() {
        var seen: Set<StreamToken> = []
        for _ in 0..<1000 {
            let token = StreamToken()
            let digits = Array("\(token)".utf8)
            #expect(digits.count == StreamToken.textBytes)
            #expect(StreamToken(digits) == token)
            #expect(seen.insert(token).inserted)
        }
        #expect("\(StreamToken(Array("0123456789abcdef00000000000000ff".utf8))!)" == "0123456789abcdef00000000000000ff")
    }

    @Test(
        "nothing else is a token",
        arguments: [
            "", "5f3a", "0123456789ABCDEF00000000000000FF", "0123456789abcdef00000000000000f",
            "0123456789abcdef00000000000000ff0", "0123456789abcdef00000000000000fg", " 123456789abcdef00000000000000ff",
        ])
    func nonsense(_ text: String) { #expect(StreamToken(Array(text.utf8)) == nil) }
}

/// The table, where expectations can reach it.
private final class Box {
    private var table = StreamTable()

    var untold: [StreamToken] { table.untold }
    var isEmpty: Bool { table.isEmpty }
    var count: Int { table.count }
    var awaited: Int { table.awaited }
    var nextDeadline: Int64? { table.nextDeadline }
    func find(_ connection: Token, _ direction: StreamDirection) -> StreamTable.Stream? {
        table.find(connection, direction)?.stream
    }
    func add(_ connection: Token, _ direction: StreamDirection, extra: [UInt8]?, deadline: Int64) -> StreamToken {
        table.add(connection, direction, extra: extra, deadline: deadline)
    }
    func tell(_ token: StreamToken, _ router: RouterID) { table.tell(token, router) }
    func arrive(_ token: StreamToken, now: Int64) -> StreamTable.Stream? { table.arrive(token, now: now) }
    func endSaid(_ token: StreamToken, by router: RouterID) -> StreamTable.Stream? { table.endSaid(token, by: router) }
    func detaching(_ token: StreamToken, by router: RouterID) -> StreamTable.Stream? {
        table.detaching(token, by: router)
    }
    func lost(_ router: RouterID) -> (broken: [StreamTable.Stream], left: Int) { table.lost(router) }
    func remove(_ connection: Token, _ direction: StreamDirection) -> RouterID? { table.remove(connection, direction) }
    func remove(_ connection: Token) -> [RouterID] { table.remove(connection) }
    func expired(now: Int64) -> [StreamTable.Stream] { table.expired(now: now) }
}

@Suite struct StreamTableTests {
    private static func connection(_ slot: UInt32, generation: UInt32 = 0) -> Token {
        Token(slot: slot, generation: generation, kind: TokenKind.client)
    }

    private static let first = RouterID(number: 1)
    private static let second = RouterID(number: 2)
    private let table = Box()

    @Test("a stream is told to a router, arrives once, and is gone with its connection")
    func life() throws {
        let connection = Self.connection(1)
        let token = table.add(connection, .toRemote, extra: [UInt8]("1".utf8), deadline: 100)
        #expect(table.untold == [token])
        #expect(table.arrive(token, now: 0) == nil, "nobody was told")
        #expect(table.awaited == 0)
        table.tell(token, Self.first)
        #expect(table.untold.isEmpty && table.awaited == 1)
        let stream = try #require(table.arrive(token, now: 99))
        #expect(stream.connection == connection && stream.direction == .toRemote && stream.extra == [UInt8]("1".utf8))
        #expect(table.arrive(token, now: 99) == nil, "a token is good once")
        #expect(table.awaited == 0)
        #expect(table.expired(now: 200).isEmpty, "it has arrived")
        #expect(table.remove(connection) == [Self.first])
        #expect(table.isEmpty && table.nextDeadline == nil)
        #expect(table.endSaid(token, by: Self.first) == nil)
    }

    @Test("a token that is late names nothing, and its stream has failed once")
    func late() throws {
        let token = table.add(Self.connection(1), .toClient, extra: nil, deadline: 100)
        table.tell(token, Self.first)
        #expect(table.nextDeadline == 100)
        #expect(table.expired(now: 99).isEmpty)
        #expect(table.arrive(token, now: 100) == nil)
        #expect(table.expired(now: 100).map(\.direction) == [.toClient])
        #expect(table.expired(now: 1000).isEmpty)
        #expect(table.nextDeadline == nil)
    }

    @Test("only the router that has a stream ends or leaves it, and it ends it once")
    func owner() throws {
        let connection = Self.connection(1)
        let token = table.add(connection, .toRemote, extra: nil, deadline: 100)
        #expect(table.endSaid(token, by: .none) == nil)
        table.tell(token, Self.first)
        #expect(table.endSaid(token, by: Self.second) == nil)
        #expect(table.detaching(token, by: Self.second) == nil)
        #expect(table.detaching(token, by: Self.first)?.connection == connection)
        // The two sockets are read in any order.
        #expect(table.endSaid(token, by: Self.first)?.connection == connection)
        #expect(table.endSaid(token, by: Self.first) == nil)
        #expect(table.arrive(token, now: 1)?.isEndSaid == true)
        #expect(table.find(connection, .toRemote)?.isEndSaid == true)
        #expect(table.find(connection, .toClient) == nil)
    }

    @Test("a router that is gone breaks what it had open; what it had not begun is untold again, under another token")
    func lostRouter() throws {
        let (open, ended, told) = (Self.connection(1), Self.connection(2), Self.connection(3))
        let openToken = table.add(open, .toRemote, extra: nil, deadline: 100)
        let endedToken = table.add(ended, .toRemote, extra: nil, deadline: 100)
        let toldToken = table.add(told, .toRemote, extra: [1], deadline: 90)
        let others = table.add(told, .toClient, extra: nil, deadline: 100)
        for token in [openToken, endedToken, toldToken] { table.tell(token, Self.first) }
        table.tell(others, Self.second)
        _ = table.arrive(openToken, now: 0)
        _ = table.arrive(endedToken, now: 0)
        _ = table.endSaid(endedToken, by: Self.first)

        let lost = table.lost(Self.first)
        #expect(lost.left == 3)
        #expect(lost.broken.map(\.connection) == [open])
        #expect(table.arrive(toldToken, now: 1) == nil, "what the lost one was told is worth nothing")
        let again = try #require(table.untold.first)
        #expect(again != toldToken && table.untold.count == 1)
        #expect(table.awaited == 1, "the other direction's")
        #expect(table.nextDeadline == 90, "the time is what is left of it")
        table.tell(again, Self.second)
        let stream = try #require(table.arrive(again, now: 89))
        #expect(stream.connection == told && stream.direction == .toRemote && stream.extra == [1])
        #expect(table.remove(told).count == 2)
        #expect(table.remove(open) == [], "nobody has it any more")
    }

    @Test("one direction ends, and the other goes on")
    func oneDirection() {
        let connection = Self.connection(7)
        for direction in StreamDirection.allCases {
            table.tell(table.add(connection, direction, extra: nil, deadline: 10), Self.first)
        }
        #expect(table.remove(connection, .toRemote) == Self.first)
        #expect(table.remove(connection, .toRemote) == nil)
        #expect(table.find(connection, .toClient) != nil)
        #expect(table.remove(connection) == [Self.first])
        #expect(table.isEmpty)
    }

    @Test("a connection's next life in the same slot knows nothing of the last one's streams")
    func generations() {
        let token = table.add(Self.connection(1), .toRemote, extra: nil, deadline: 10)
        table.tell(token, Self.first)
        #expect(table.remove(Self.connection(1, generation: 1)).isEmpty)
        #expect(table.find(Self.connection(1, generation: 1), .toRemote) == nil)
        #expect(table.count == 1)
    }

    @Test(
        "whatever happens in whatever order: no token arrives twice, none is lost, and nothing is left at the end",
        arguments: 1...8)
    func simulation(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var now: Int64 = 0
        var live: Set<UInt32> = []
        var tokens: [StreamToken] = []
        var arrived: Set<StreamToken> = []
        var expired = 0
        for _ in 0..<4000 {
            now += Int64.random(in: 0...3, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0:
                let slot = UInt32.random(in: 0..<200, using: &random)
                guard live.insert(slot).inserted else { break }
                for direction in StreamDirection.allCases {
                    tokens.append(table.add(Self.connection(slot), direction, extra: nil, deadline: now + 50))
                }
            case 1, 2:
                for token in table.untold.prefix(2) {
                    table.tell(token, [Self.first, Self.second].randomElement(using: &random)!)
                }
            case 3, 4:
                guard let token = tokens.randomElement(using: &random), let stream = table.arrive(token, now: now)
                else { break }
                #expect(arrived.insert(token).inserted)
                #expect(live.contains(stream.connection.slot))
            case 5:
                let router = [Self.first, Self.second].randomElement(using: &random)!
                if Int.random(in: 0..<10, using: &random) == 0 {
                    for stream in table.lost(router).broken { #expect(stream.phase == .open && !stream.isEndSaid) }
                    tokens += table.untold
                } else if let token = tokens.randomElement(using: &random) {
                    _ = table.endSaid(token, by: router)
                }
            case 6:
                for stream in table.expired(now: now) {
                    expired += 1
                    #expect(stream.phase != .open && stream.deadline <= now && live.contains(stream.connection.slot))
                }
            default:
                guard let slot = live.randomElement(using: &random) else { break }
                live.remove(slot)
                _ = table.remove(Self.connection(slot))
            }
            #expect(table.count == 2 * live.count)
            if tokens.count > 400 { tokens.removeFirst(200) }
        }
        #expect(!arrived.isEmpty && expired > 0)
        for slot in live { _ = table.remove(Self.connection(slot)) }
        #expect(table.isEmpty && table.untold.isEmpty && table.nextDeadline == nil)
    }
}
